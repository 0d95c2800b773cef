"""Keeps setup.py from bundling files of the build machine into the wheel.

tcmalloc: upstream copies whatever ``ldconfig`` finds into ``vllm/libs``, with its dependency on the machine's C++
library, and preloads it. Two machines would make two wheels, one of them slower. It is taken out of a package of the
builder image instead (``artifacts/compiled/tcmalloc.py``).

Rust front end: compiled where a cargo is found, silently left out elsewhere, and cargo would download its sources
during the compile. It is optional; the wheel comes without.
"""

from __future__ import annotations

import re

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import SETUP

TCMALLOC = re.compile(
    r"^(?: +#[^\n]*\n)?( +)if should_bundle_tcmalloc\(\):\n +bundle_tcmalloc\(self\.build_lib\)\n", re.MULTILINE
)
RUST = re.compile(r"^( *)rust_extensions=(?!\[\])\w+,\n", re.MULTILINE)


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Removes the bundling of tcmalloc and the Rust extension where the release has them."""
    text = tree.text(SETUP)
    for found, sign, new in (
        (TCMALLOC, "bundle_tcmalloc(", ""),
        (RUST, "rust_extensions=", r"\1rust_extensions=[],\n"),
    ):
        if sign in text:
            text, count = found.subn(new, text)
            if count != 1:
                raise tree.missing(SETUP, sign, found=count)
    tree.write(SETUP, text)


PATCH = Patch(name="setup", apply=apply)
