"""Accounts for every extension of a release: those that it builds, and those that its Python code imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from vllm_wheels.core.patches.known import known
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import SETUP

KERNELS = "_C"
OTHER = re.compile(r"\b_C_AVX\w*")
"""Extensions that only upstream's own wheels of the unified family have."""


def apply(tree: Tree, wanted: Wanted) -> None:
    """Tells of extensions that nobody knows, and refuses what a variant's wheel would not find.

    Raises:
        PatchError: a further extension holds kernels, or code names an extension that the wheel does not have.
    """
    upstream = wanted.upstream
    for name in (*upstream.extensions, *(name for name, _ in upstream.later_extensions)):
        if name in (*known().extensions.x86, *known().extensions.others):
            continue
        if name.startswith(KERNELS):
            raise tree.misfit(SETUP, why=f"it builds {name} for x86-64, and no variant says with which flags")
        tree.notice(f"extension {name}, which the patches do not know, is compiled and shipped as upstream has it")
    if wanted.whole:
        return
    for path in tree.code_with("_C_AVX"):
        for line, name in named(tree.module(path)):
            raise tree.misfit(path, why=f"line {line} names {name}, and the wheel has {KERNELS} alone")


def named(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The extensions beside ``_C`` that code names, by an import, an attribute or a text, with the line."""
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                words = [name.name for name in names] + [getattr(node, "module", None) or ""]
            case ast.Attribute(attr=attribute):
                words = [attribute]
            case ast.Constant(value=str(text)):
                words = [text]
            case _:
                continue
        for word in words:
            if found := OTHER.search(word):
                yield node.lineno, found[0]


PATCH = Patch(name="extensions", apply=apply)
