"""Names of the assets, and what each is made from."""

from __future__ import annotations

import dagster as dg

from vllm_wheels.core.variants import flagship, variants

NEEDS = {
    "source": ("upstream",),
    "torch_env": ("source", "packages"),
    "metadata": ("source", "settings"),
    "wheel": ("source", "torch_env", "metadata", "toolchain"),
    "verification": ("wheel",),
    "release": ("verification",),
}
PER_VARIANT = frozenset({"metadata", "wheel", "verification", "release"})


def key(kind: str, variant: str | None) -> dg.AssetKey:
    """Asset key of a kind of artifact: the variant is in it where the artifact belongs to one."""
    return dg.AssetKey([kind, variant] if variant and kind in PER_VARIANT else [kind])


def all_keys() -> list[dg.AssetKey]:
    """Keys of every asset that is made here, shared ones first."""
    return [key(kind, name) for kind in NEEDS for name in (variants() if kind in PER_VARIANT else [None])]


def earlier(kind: str, variant: str | None) -> list[dg.AssetKey]:
    """Assets that come before one in a run although it is not made from them: the flagship is published last."""
    if (kind, variant) != ("release", flagship()):
        return []
    return [dg.AssetKey(["release", name]) for name in variants() if name != variant]
