"""Which operators the extension of each variant registers in a release, by its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vllm_wheels.core.formats.op_schemas import Operator, in_source
from vllm_wheels.core.patches import vnni_bindings
from vllm_wheels.core.patches.compiled import BINDINGS, convolves, vnni_sources
from vllm_wheels.core.patches.labels import lacking, same_code, same_code_in, without
from vllm_wheels.core.patches.patch import Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.variants import Variant, variants

ANY_X86 = frozenset({"__x86_64__", "__linux__", "__GNUC__"})
MACROS: Mapping[str, tuple[str, ...]] = {
    "-mavx2": ("__AVX2__",),
    "-mavx512f": ("__AVX2__", "__AVX512F__"),
    "-mavx512vnni": ("__AVX512VNNI__",),
    "-mavx512bf16": ("__AVX512BF16__",),
    "-mamx-tile": ("__AMX_TILE__",),
    "-mamx-bf16": ("__AMX_BF16__",),
}
"""What g++ predefines for a flag, as far as conditions before registrations ask for it."""


def registered(root: Path, release: str, variant: Variant) -> dict[str, Operator]:
    """The operators that a variant's extension registers in a release; none where the release has no such source.

    Raises:
        PatchError: a condition before a registration cannot be understood.
    """
    tree = Tree(root=root, release=release)
    if not tree.has(BINDINGS):
        return {}
    same = same_code_in(variant, root)
    code = without(same_code(variant, variants()[same.same_code_as]) if same else variant, lacking(variant, root))
    if vnni_sources(root, code):
        vnni_bindings.register(tree, convolves=convolves(root, code))
    macros = ANY_X86.union(*(MACROS.get(flag, ()) for flag in code.flags))
    try:
        return in_source(tree.text(BINDINGS), macros)
    except ValueError as error:
        raise tree.misfit(BINDINGS, why=str(error)) from error


def elsewhere(root: Path, wanted: Wanted) -> dict[str, str]:
    """The operators that this variant lacks, each with the lowest distribution that has it, or "" for none.

    Operators that the source registers on other processors only belong to the latter.
    """
    release = wanted.upstream.release
    found = {name: registered(root, release, each) for name, each in variants().items()}
    text = Tree(root=root, release=release).text(BINDINGS) if found[wanted.variant.name] else ""
    own = found[wanted.variant.name]
    return {
        operator: next((wanted.distributions[name] for name, each in found.items() if operator in each), "")
        for operator in in_source(text)
        if operator not in own
    }
