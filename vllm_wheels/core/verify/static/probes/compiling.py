"""Compiles every Python file below a folder without running it; prints what does not compile as one line of JSON.

Called with the folder and the version of Python that is meant: an interpreter of another version parses with that
version's grammar as far as it knows it. Runs on every Python from 3.8 on.
"""

import ast
import gc
import json
import re
import resource
import sys
import warnings
from pathlib import Path

LONGEST, MOST_MEMORY = 4 * 2**20, 900 * 2**20
"""Bytes of a source file, and of memory; the largest file of vLLM has 0.3 MB."""

GENERIC = rb"\btype[\s\\]+[\w\x80-\xff]+[\s\\]*[=\[]|\b(?:def|class)[\s\\]+[\w\x80-\xff]+[\s\\]*\["
GRAMMAR = {
    (3, 9): rb"\bwith[\s\\]*\(",
    (3, 10): rb"\bmatch\b",
    (3, 11): rb"\bexcept[\s\\]*\*",
    (3, 12): GENERIC,
    (3, 13): GENERIC,
    (3, 14): rb"\bexcept\b|\b(?:[tT][rR]?|[rR][tT])[\"']",
}
"""What must stand in a file that needs the grammar of a Python or a later one (CHECK_VERSION in CPython's
``python.gram``): only a file with something newer than is meant has to be parsed twice."""


def main() -> None:
    """Compiles and prints."""
    major, minor = sys.argv[2].split(".")
    root, wanted = Path(sys.argv[1]), (int(major), int(minor))
    warnings.simplefilter("ignore")
    # Trees are no cycles, and collecting garbage between them takes a quarter of the time.
    gc.disable()
    faults, files, later = [], 0, _later(wanted)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        files += 1
        if path.stat().st_size > LONGEST:
            faults.append(f"{name}: it has more than {LONGEST} bytes")
            continue
        source = path.read_bytes()
        try:
            if later and later.search(source):
                ast.parse(source, name, feature_version=wanted)
            compile(source, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            faults.append(f"{name}{f', line {line}' if line else ''}: {getattr(error, 'msg', None) or repr(error)}")
    sys.stdout.write(json.dumps({"files": files, "faults": faults}) + "\n")


def _later(wanted: "tuple[int, int]") -> "re.Pattern[bytes] | None":
    """What may need a later grammar than is wanted; everything, where this Python is newer than the table."""
    here = sys.version_info[:2]
    if here == wanted:
        return None
    if here > max(GRAMMAR):
        return re.compile(b"")
    return re.compile(b"|".join(pattern for python, pattern in GRAMMAR.items() if python > wanted))


if __name__ == "__main__":
    main()
