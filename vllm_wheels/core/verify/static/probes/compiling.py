"""Compiles every Python file below a folder without running it; prints what does not compile as one line of JSON.

Called with the folder and the version of Python that is meant: an interpreter of another version parses with that
version's grammar as far as it knows it. Runs on every Python from 3.8 on.
"""

import ast
import json
import sys
import warnings
from pathlib import Path


def main() -> None:
    """Compiles and prints."""
    major, minor = sys.argv[2].split(".")
    root, wanted = Path(sys.argv[1]), (int(major), int(minor))
    warnings.simplefilter("ignore")
    faults, files = [], 0
    for path in sorted(root.rglob("*.py")):
        name, source = path.relative_to(root).as_posix(), path.read_bytes()
        files += 1
        try:
            if sys.version_info[:2] != wanted:
                ast.parse(source, name, feature_version=wanted)
            compile(source, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            faults.append(f"{name}{f', line {line}' if line else ''}: {getattr(error, 'msg', None) or error}")
    sys.stdout.write(json.dumps({"files": files, "faults": faults}) + "\n")


if __name__ == "__main__":
    main()
