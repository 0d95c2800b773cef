"""Lets vLLM ask torch about the CPU through ``torch.cpu``, which every torch answers.

Up to 0.19 vLLM asks ``torch._C._cpu``, which torch 2.13 has emptied. A release that is built against a later torch than
its own (``torch.version``) would end in an AttributeError with the first model.
"""

from __future__ import annotations

import re

from packaging.specifiers import SpecifierSet

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

PACKAGE = "vllm"
ASKED = re.compile(r"\btorch\._C\._cpu\.(_is_\w+)")


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Changes every question below ``vllm/``."""
    for file in sorted((tree.root / PACKAGE).rglob("*.py")):
        path = file.relative_to(tree.root).as_posix()
        text = tree.text(path)
        asked = ASKED.sub(r"torch.cpu.\1", text)
        if asked != text:
            tree.write(path, asked)


PATCH = Patch(name="questions", apply=apply, releases=SpecifierSet("<0.20"))
