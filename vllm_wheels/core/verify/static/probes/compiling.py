"""Compiles every Python file below a folder without running it; prints what does not compile as one line of JSON.

Called with the folder and the version of Python that is meant: an interpreter of another version parses with that
version's grammar as far as it knows it. Runs on every Python from 3.8 on.
"""

import ast
import json
import resource
import sys
import warnings
from pathlib import Path

LONGEST, MOST_MEMORY = 4 * 2**20, 900 * 2**20
"""Bytes of a source file, and of memory; the largest file of vLLM has 0.3 MB."""


def main() -> None:
    """Compiles and prints."""
    major, minor = sys.argv[2].split(".")
    root, wanted = Path(sys.argv[1]), (int(major), int(minor))
    warnings.simplefilter("ignore")
    faults, files = [], 0
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        files += 1
        if path.stat().st_size > LONGEST:
            faults.append(f"{name}: it has more than {LONGEST} bytes")
            continue
        source = path.read_bytes()
        try:
            if sys.version_info[:2] != wanted:
                ast.parse(source, name, feature_version=wanted)
            compile(source, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            faults.append(f"{name}{f', line {line}' if line else ''}: {getattr(error, 'msg', None) or repr(error)}")
    sys.stdout.write(json.dumps({"files": files, "faults": faults}) + "\n")


if __name__ == "__main__":
    main()
