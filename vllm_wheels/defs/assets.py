"""The assets: a partition in, an artifact of the core out, reported."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's body when it is defined.
from collections.abc import Iterator

import dagster as dg

from vllm_wheels.core.variants import variants
from vllm_wheels.defs import checks
from vllm_wheels.defs.code_versions import code_version
from vllm_wheels.defs.keys import NEEDS, PER_VARIANT, all_keys, earlier, key
from vllm_wheels.defs.partitions import PARTITIONS
from vllm_wheels.defs.resources import BuildMode, BuildOptions

__all__ = ["NEEDS", "PER_VARIANT", "all_assets", "all_keys", "key"]

DESCRIPTIONS = {
    "source": "Source of the release, with its hash, and what it demands",
    "torch_env": "CPU torch and the release's build requirements, locked and proven to hold no CUDA",
    "metadata": "Names, texts, requirements and patches of the variant, as a diff",
    "wheel": "The variant's wheel: compiled, stripped, named, repaired, with its provenance",
    "verification": "Report of the checks on exactly this wheel, on this Python",
    "release": "What was published where, with hashes",
}
KINDS = {
    "source": {"archive"},
    "torch_env": {"uv", "pytorch"},
    "metadata": {"markdown"},
    "wheel": {"cplusplus", "python"},
    "verification": {"pytest"},
    "release": {"pypi"},
}
POOLS = {"wheel": "compile", "verification": "test_run"}
"""Kinds of which only so many are made at the same time as dagster.yaml allows their pool."""

OWNERS = ["team:wheels"]


def all_assets() -> list[dg.AssetsDefinition]:
    """Every asset of the graph, but for the observed toolchain."""
    shared = [artifact_asset(kind, None) for kind in NEEDS if kind not in PER_VARIANT]
    return shared + [artifact_asset(kind, name) for name in variants() for kind in NEEDS if kind in PER_VARIANT]


def artifact_asset(kind: str, variant: str | None) -> dg.AssetsDefinition:
    """The asset of a kind of artifact, for a variant where it belongs to one."""
    asset = key(kind, variant)
    spec = dg.AssetSpec(
        asset,
        deps=[*(key(needed, variant) for needed in NEEDS[kind]), *earlier(kind, variant)],
        partitions_def=PARTITIONS,
        group_name=variant or "shared",
        description=DESCRIPTIONS[kind],
        code_version=code_version(kind, variant),
        kinds=KINDS[kind],
        owners=OWNERS,
    )
    check_specs = checks.specs(asset)

    # Only what can be done in part may leave out its checks, as a dry run does (docs/dagster.md, "Dry run").
    @dg.multi_asset(
        name="__".join(asset.path),
        specs=[spec],
        check_specs=check_specs,
        can_subset=bool(check_specs),
        pool=POOLS.get(kind),
    )
    def body(
        context: dg.AssetExecutionContext, build_mode: BuildMode, build_options: BuildOptions
    ) -> Iterator[dg.MaterializeResult[None]]:
        # Whoever only looks at the graph does not wait for everything that making an artifact needs.
        from vllm_wheels.defs import making  # noqa: PLC0415

        yield making.carry_out(context, kind, variant, mode=build_mode, options=build_options)

    return body
