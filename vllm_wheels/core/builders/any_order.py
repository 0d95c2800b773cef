"""Stands before ninja in the build folder: puts the compiles of ``build.ninja`` into an order of its own.

Machines that share a compiler cache and begin together would otherwise all compile the same file at the same time, and
none would find what another compiled. Runs with the Python of the build, whatever its version.
"""

import os
import random
import re
import shutil
import sys
from pathlib import Path

COMPILE = re.compile(r"^build \S+: C(?:XX)?_COMPILER__", re.MULTILINE)
APART = "\n\n"
"""Between the statements that CMake writes."""


def reordered(text: str) -> str:
    """The statements of a build.ninja, those that compile a file by chance at each other's places."""
    statements = text.split(APART)
    places = [number for number, statement in enumerate(statements) if COMPILE.search(statement)]
    mixed = [statements[place] for place in places]
    random.shuffle(mixed)
    for place, statement in zip(places, mixed):  # noqa: B905 - not before Python 3.10
        statements[place] = statement
    return APART.join(statements)


def main() -> None:
    """Reorders what CMake wrote into this folder, and becomes ninja."""
    own = Path(sys.argv[0]).parent
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != own)
    plan = Path("build.ninja")
    if plan.is_file():
        written = plan.stat()
        plan.write_text(reordered(plan.read_text("utf-8")), "utf-8")
        # As old as it was: a younger one would tell ninja nothing, an older one that CMake must write it again.
        os.utime(plan, ns=(written.st_atime_ns, written.st_mtime_ns))
    ninja = shutil.which("ninja", path=path)
    if ninja is None:
        sys.exit("there is no ninja on PATH")
    os.execv(ninja, [ninja, *sys.argv[1:]])  # noqa: S606 - no shell is needed


if __name__ == "__main__":
    main()
