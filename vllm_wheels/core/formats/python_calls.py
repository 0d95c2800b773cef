"""Reads from the syntax tree of Python code what a module calls and imports, under whatever name it has it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping


def aliases(module: ast.Module) -> dict[str, str]:
    """What the names that a module imports stand for, such as ``v`` for ``importlib.metadata.version``."""
    return dict(_aliases(module))


def dotted(node: ast.expr, known: Mapping[str, str]) -> str | None:
    """The full name of what an expression such as ``metadata.version`` stands for; None where it is no such thing."""
    match node:
        case ast.Name():
            return known.get(node.id)
        case ast.Attribute():
            owner = dotted(node.value, known)
            return f"{owner}.{node.attr}" if owner else None
        case _:
            return None


def calls(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """All calls of imported functions, by their full name."""
    known = aliases(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and (name := dotted(node.func, known)):
            yield name, node


def _aliases(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for name in node.names:
                # "import importlib.metadata" binds importlib, under which the dotted name is then written out.
                yield (name.asname, name.name) if name.asname else (name.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                yield name.asname or name.name, f"{node.module}.{name.name}"
