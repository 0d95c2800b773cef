"""Precompiles torch's headers for all sources of the extension that include them.

Parsing ``torch/all.h`` is half of what most kernels take to compile: 5 of 10 seconds each in 0.32.0. Precompiled it
costs 0.5, and precompiling takes 20. The objects are the same byte for byte, because these sources include that header
first, or after headers that change nothing in it. Sources that include less of torch are compiled without it, because
it would change their objects.
"""

from __future__ import annotations

import posixpath
import re

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE

SOURCES = "csrc"
KERNELS = "csrc/cpu/**/*.cpp"
HEADER = "torch/all.h"
FEWEST = 5
"""With fewer sources, precompiling the header takes longer than it saves."""

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(?:"([^"\n]+)"|<([^>\n]+)>)', re.MULTILINE)
PRECOMPILED = """

# {header} is precompiled for the sources that include it.
get_target_property(_ALONE _C SOURCES)
list(REMOVE_ITEM _ALONE
    {sources})
set_source_files_properties(${{_ALONE}} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
target_precompile_headers(_C PRIVATE <{header}>)
"""


def apply(tree: Tree, wanted: Wanted) -> None:
    """Adds the precompiled header to target ``_C``; a whole build, with all of upstream's extensions, gets none."""
    found = [source for source in _kernels(tree) if _includes_header(tree, source)]
    if wanted.whole or len(found) < FEWEST:
        return
    sources = "\n    ".join(f'"{source}"' for source in found)
    tree.write(CMAKE, tree.text(CMAKE).rstrip() + PRECOMPILED.format(header=HEADER, sources=sources))


def _kernels(tree: Tree) -> list[str]:
    return sorted(file.relative_to(tree.root).as_posix() for file in tree.root.glob(KERNELS))


def _includes_header(tree: Tree, source: str) -> bool:
    """Whether the source includes the header, directly or through the release's own headers."""
    seen: set[str] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for own, system in INCLUDE.findall(tree.text(path)):
            if system == HEADER:
                return True
            places = (posixpath.normpath(f"{folder}/{own}") for folder in (posixpath.dirname(path), SOURCES))
            waiting.extend(place for place in places if own and tree.has(place))
    return False


PATCH = Patch(name="headers", apply=apply)
