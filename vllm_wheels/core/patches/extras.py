"""Reads the optional dependencies from setup.py, where upstream keeps them as a literal."""

from __future__ import annotations

import ast

from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import SETUP

KEYWORD = "extras_require"


def optional_dependencies(tree: Tree) -> dict[str, list[str]]:
    """Requirements by extra, as upstream wrote them; PatchError where setup.py does not pass them as a literal."""
    module = ast.parse(tree.original(SETUP))
    found = [
        keyword.value
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"
        for keyword in node.keywords
        if keyword.arg == KEYWORD
    ]
    if len(found) != 1:
        raise tree.missing(SETUP, f"setup(..., {KEYWORD}={{...}})", found=len(found))
    try:
        extras = ast.literal_eval(found[0])
        return {str(name): [_text(line) for line in lines] for name, lines in extras.items()}
    except (ValueError, TypeError, AttributeError) as error:
        why = f"{KEYWORD} in line {found[0].lineno} is not a literal of texts"
        raise tree.misfit(SETUP, why=why) from error


def _text(line: object) -> str:
    if not isinstance(line, str):
        raise TypeError
    return line
