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


def span(text: str, node: ast.expr) -> tuple[int, int]:
    """Where an expression begins and ends in the text that it was parsed from."""
    assert node.end_lineno is not None  # noqa: S101 - ast.parse sets the ends of every node
    return _offset(text, node.lineno, node.col_offset), _offset(text, node.end_lineno, node.end_col_offset)


def _offset(text: str, line: int, column: int | None) -> int:
    # Not splitlines, which also divides at form feeds and the like. Columns count bytes of UTF-8.
    lines = text.split("\n")
    before = lines[line - 1].encode()[:column].decode()
    return sum(len(each) + 1 for each in lines[: line - 1]) + len(before)


def _aliases(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for name in node.names:
                # "import importlib.metadata" binds importlib, under which the dotted name is then written out.
                yield (name.asname, name.name) if name.asname else (name.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                yield name.asname or name.name, f"{node.module}.{name.name}"
