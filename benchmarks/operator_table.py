"""Adds the operators of releases to the table of those that vLLM registers on some CPU.

    python -m benchmarks.operator_table TREE...

Each TREE is an unpacked release, from 0.8.5 on. What a later release no longer has stays in the table: wheels of
earlier ones are verified with it as well.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import vllm_wheels.core.verify.static
from vllm_wheels.core.formats.op_schemas import in_source
from vllm_wheels.core.patches.compiled import BINDINGS
from vllm_wheels.core.verify.static.operators import KNOWN

HEAD = """\
# Operators that csrc/cpu/torch_bindings.cpp of some release registers on some processor. A wheel whose Python calls
# one of them needs it; all others are of GPUs. Written by: python -m benchmarks.operator_table TREE...

operators = [
"""


def main(trees: list[str]) -> None:
    """Writes the table anew, with what the trees add."""
    path = Path(next(iter(vllm_wheels.core.verify.static.__path__)), KNOWN)
    known = set(tomllib.loads(path.read_text("utf-8"))["operators"]) if path.exists() else set()
    for tree in trees:
        known |= set(in_source(Path(tree, BINDINGS).read_text("utf-8")))
    path.write_text(HEAD + "".join(f'    "{name}",\n' for name in sorted(known)) + "]\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
