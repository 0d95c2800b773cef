"""Makes vLLM query CPU features through ``torch.cpu``, which every version of torch has.

Up to 0.19 vLLM queries ``torch._C._cpu``, which is empty in torch 2.13. A release that is built against a later torch
than its own (``torch.version``) would end in an AttributeError with the first model.
"""

from __future__ import annotations

import re

from packaging.specifiers import SpecifierSet

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

ASKED = re.compile(r"\btorch\._C\._cpu\.(_is_\w+)")


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Replaces every query below ``vllm/``."""
    for path in tree.code_with("torch._C._cpu."):
        tree.write(path, ASKED.sub(r"torch.cpu.\1", tree.text(path)))


PATCH = Patch(name="questions", apply=apply, releases=SpecifierSet("<0.20"))
