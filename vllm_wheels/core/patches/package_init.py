"""Reads the imports of ``vllm/__init__.py``, before and behind which patches put their own."""

from __future__ import annotations

import ast

from vllm_wheels.core.patches.guard_files import INIT
from vllm_wheels.core.patches.tree import Tree


def imports(tree: Tree) -> list[ast.Import | ast.ImportFrom]:
    """The imports at the module's top that do something, in order; PatchError where there is none."""
    found = [node for node in tree.module(INIT).body if isinstance(node, ast.Import | ast.ImportFrom)]
    effective = [node for node in found if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    if not effective:
        raise tree.missing(INIT, "import ...")
    return effective


def put_first(tree: Tree, line: str) -> None:
    """Puts a line before all other imports."""
    lines = tree.lines(INIT)
    lines.insert(imports(tree)[0].lineno - 1, line)
    tree.write(INIT, "".join(lines))
