"""Has the linker note the instruction-set level in the extensions, so that the system's loader refuses lesser CPUs.

The guard speaks first and better, but only to importers of ``vllm``. Who loads an extension in another way is told
"CPU ISA level is lower than required" by glibc from 2.33 on, in place of an illegal instruction. There are levels for
AVX2 (``x86-64-v3``) and AVX-512 (``x86-64-v4``) only, none for VNNI, BF16 and AMX (x86-64 psABI, property
GNU_PROPERTY_X86_ISA_1_NEEDED; binutils from 2.36 on).
"""

from __future__ import annotations

from collections.abc import Iterator

from vllm_wheels.core.patches.native_unified import options_of, x86_targets
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE
from vllm_wheels.core.variants import variants

EXTENSION = "_C"
NOTED = """

# The loader refuses them on a lesser CPU.
{options}
"""
OPTION = 'target_link_options({target} PRIVATE "LINKER:-z,{level}")'


def apply(tree: Tree, wanted: Wanted) -> None:
    """Adds the link option to each extension for x86-64."""
    text = tree.text(CMAKE)
    levels = _of_each(tree, text) if wanted.whole else [(EXTENSION, wanted.code.level)]
    options = "\n".join(OPTION.format(target=target, level=level) for target, level in levels)
    tree.write(CMAKE, text.rstrip() + NOTED.format(options=options))


def _of_each(tree: Tree, text: str) -> Iterator[tuple[str, str]]:
    """Each of upstream's extensions with the level of the lowest variant that has its sources."""
    for target in x86_targets(tree, text):
        sources = options_of(target)["SOURCES"]
        level = next((each.level for each in variants().values() if f"${{{each.sources[0]}}}" in sources), None)
        if level is None:
            raise tree.misfit(CMAKE, why=f"no variant has the sources of {target.arguments[0]}: {' '.join(sources)}")
        yield target.arguments[0], level


PATCH = Patch(name="level", apply=apply)
