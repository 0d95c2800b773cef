"""The assets: each takes a partition, has the core make the artifact, and reports it."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's body when it is defined.
from collections.abc import Iterator

import dagster as dg

from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.variants import variants
from vllm_wheels.defs import checks, workers
from vllm_wheels.defs.keys import OVERVIEW, earlier, key, kinds, needs, per_variant
from vllm_wheels.defs.partitions import PARTITIONS
from vllm_wheels.defs.resources import BuildMode, BuildOptions

UNVERSIONED = "1"
"""Of an asset whose result no code of ours decides."""

RELEASED = "What was published where, with hashes"

OWNERS = ["team:wheels"]


def all_assets() -> list[dg.AssetsDefinition]:
    """Every asset that is made here; the observed ones are in ``inputs``."""
    shared = [artifact_asset(kind, None) for kind in kinds() if not per_variant(kind)]
    return shared + [artifact_asset(kind, name) for name in variants() for kind in kinds() if per_variant(kind)]


def overview() -> dg.AssetSpec:
    """The page for the morning; the sensor of the same name reports it whenever something changed."""
    return dg.AssetSpec(
        OVERVIEW,
        group_name="shared",
        kinds={"observed"},
        description="All wheels: what is built, tried, published, stale or broken, and what happens next",
    )


def artifact_asset(kind: str, variant: str | None) -> dg.AssetsDefinition:
    """The asset of a kind of artifact, for a variant where it belongs to one."""
    asset, rule = key(kind, variant), rules().get(kind)
    spec = dg.AssetSpec(
        asset,
        deps=[*needs(kind, variant), *earlier(kind, variant)],
        partitions_def=PARTITIONS,
        group_name=variant or "shared",
        description=rule.title if rule else RELEASED,
        code_version=rule.code_version(variant) if rule else UNVERSIONED,
        kinds=set(rule.labels) if rule else {"pypi"},
        owners=OWNERS,
    )
    check_specs = checks.specs(asset)

    # Only what can be done in part may give no result: a dry run has no verdicts, and a verdict may stay open.
    @dg.multi_asset(
        name="__".join(asset.path),
        specs=[spec],
        check_specs=check_specs,
        can_subset=bool(check_specs),
        op_tags=workers.tags(kind, variant),
    )
    def body(
        context: dg.AssetExecutionContext, build_mode: BuildMode, build_options: BuildOptions
    ) -> Iterator[dg.MaterializeResult[None]]:
        # Whoever only looks at the graph does not wait for everything that making an artifact needs.
        from vllm_wheels.defs import making  # noqa: PLC0415

        yield from making.carry_out(context, kind, variant, mode=build_mode, options=build_options)

    return body
