"""Renames vLLM's lookups of its own distribution, as ``importlib.metadata.version("vllm")``, to the wheel's name.

Lookups are found in the syntax tree, under whatever alias the file imports the functions; only the string literal is
replaced, so the file keeps its formatting.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

UPSTREAM_NAME = "vllm"
MODULES = ("importlib.metadata", "importlib_metadata")
QUESTIONS = ("version", "metadata", "distribution", "requires", "files", "Distribution.from_name")
LOOKUPS = frozenset(f"{module}.{question}" for module in MODULES for question in QUESTIONS)

MUST_HAVE = {
    "vllm/platforms/__init__.py": SpecifierSet(">=0.8.5"),
    "vllm/entrypoints/cli/main.py": SpecifierSet(">=0.9.2"),
}
"""Files in which a lookup is known to be, by release: not finding one there means that the patch misses something."""

CANDIDATE = re.compile(rb"""["']vllm["']""")
LEFT_OVER = re.compile(
    r"""\b(?:version|metadata|distribution|requires|files|from_name|get_distribution)\(\s*(?:\w+\s*=\s*)?["']vllm["']"""
)
"""Anything that looks like a lookup, whatever it is imported as; ``pkg_resources.get_distribution`` among them."""


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """The string literal ``"vllm"`` in a lookup, by character offsets in the text."""

    start: int
    end: int


def apply(tree: Tree, wanted: Wanted) -> None:
    """Renames the distribution in every lookup below ``vllm/``."""
    for path in _candidates(tree):
        text = tree.text(path)
        renamed = text
        for lookup in sorted(lookups(text), key=lambda found: -found.start):
            literal = renamed[lookup.start : lookup.end].replace(UPSTREAM_NAME, wanted.distribution)
            renamed = renamed[: lookup.start] + literal + renamed[lookup.end :]
        if renamed != text:
            tree.write(path, renamed)
        if left := LEFT_OVER.search(renamed):
            raise tree.misfit(path, why=f"{left[0]!r} asks for the distribution in a way that the patch does not know")
    for path, releases in MUST_HAVE.items():
        if releases.contains(tree.release, prereleases=True) and path not in tree.changed:
            raise tree.missing(path, f'importlib.metadata.version("{UPSTREAM_NAME}")')


def _candidates(tree: Tree) -> Iterator[str]:
    for file in sorted((tree.root / "vllm").rglob("*.py")):
        if CANDIDATE.search(file.read_bytes()):
            yield file.relative_to(tree.root).as_posix()


def lookups(text: str) -> Iterator[Lookup]:
    """All lookups of the distribution ``vllm`` in a module's text."""
    if not any(module in text for module in MODULES) and "from importlib import" not in text:
        return
    module = ast.parse(text)
    aliases = dict(_aliases(module))
    lines = text.splitlines(keepends=True)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _dotted(node.func, aliases) in LOOKUPS:
            for asked in (*node.args[:1], *(keyword.value for keyword in node.keywords)):
                if isinstance(asked, ast.Constant) and asked.value == UPSTREAM_NAME:
                    start = _offset(lines, asked.lineno, asked.col_offset)
                    yield Lookup(start=start, end=_end(lines, asked))


def _aliases(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for name in node.names:
                # "import importlib.metadata" binds importlib, under which the dotted name is then written out.
                yield (name.asname, name.name) if name.asname else (name.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                yield name.asname or name.name, f"{node.module}.{name.name}"


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    match node:
        case ast.Name():
            return aliases.get(node.id)
        case ast.Attribute():
            owner = _dotted(node.value, aliases)
            return f"{owner}.{node.attr}" if owner else None
        case _:
            return None


def _end(lines: list[str], node: ast.expr) -> int:
    assert node.end_lineno is not None  # noqa: S101 - ast.parse sets the ends of every node
    assert node.end_col_offset is not None  # noqa: S101
    return _offset(lines, node.end_lineno, node.end_col_offset)


def _offset(lines: list[str], line: int, column: int) -> int:
    # The syntax tree counts columns in bytes of UTF-8.
    before = lines[line - 1].encode()[:column].decode()
    return sum(len(text) for text in lines[: line - 1]) + len(before)


PATCH = Patch(name="lookups", apply=apply)
