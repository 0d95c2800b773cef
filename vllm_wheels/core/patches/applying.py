"""Applies all patches to the tree of a release."""

from __future__ import annotations

from pathlib import Path

from vllm_wheels.core.patches import (
    cpu_platform,
    extensions,
    fixes,
    fp8,
    guard,
    kernels,
    licence,
    lookups,
    native_cpuinfo,
    native_flags,
    native_headers,
    native_host_detected,
    native_level,
    native_onednn,
    native_setup,
    native_unified,
    native_vnni,
    preloads,
    questions,
    refusals,
)
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

PATCHES: tuple[Patch, ...] = (
    licence.PATCH,
    native_flags.PATCH,
    native_unified.PATCH,
    native_vnni.PATCH,
    native_host_detected.PATCH,
    native_cpuinfo.PATCH,
    native_level.PATCH,
    native_onednn.PATCH,
    native_headers.PATCH,
    native_setup.PATCH,
    *fixes.PATCHES,
    lookups.PATCH,
    cpu_platform.PATCH,
    questions.PATCH,
    kernels.PATCH,
    fp8.PATCH,
    refusals.PATCH,
    preloads.PATCH,
    guard.PATCH,
    extensions.PATCH,
)
"""In the order in which they are applied; refusals of a variant come first."""


def patched(root: Path, wanted: Wanted) -> Tree:
    """Applies every patch that is meant for the release.

    Raises:
        PatchError: a patch did not take.
        VariantNotInReleaseError: the release cannot honour the variant.
    """
    tree = Tree(root=root, release=wanted.upstream.release)
    for patch in PATCHES:
        if patch.meant_for(wanted.upstream):
            patch.apply(tree, wanted)
    return tree
