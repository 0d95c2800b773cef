"""The assets: a partition in, a piece of the core out, reported."""

# No `from __future__ import annotations`: Dagster reads the annotations of an asset's body when it is defined.
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

import dagster as dg

from vllm_wheels.core.delivery import COMPANIONS
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.plan import fingerprint
from vllm_wheels.core.publish import require_publishable
from vllm_wheels.core.store import Piece
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variants
from vllm_wheels.core.workshop import Workshop
from vllm_wheels.defs import internals, report
from vllm_wheels.defs.partitions import PARTITIONS
from vllm_wheels.defs.resources import BuildMode, BuildOptions

DESCRIPTIONS = {
    "source": "Source of the release, with its hash, and what it demands",
    "torch_env": "CPU torch and the release's build requirements, locked and proven to hold no CUDA",
    "metadata": "Names, texts, requirements and patches of the variant, as a diff",
    "wheel": "The variant's wheel: compiled, stripped, named, repaired, with its provenance",
    "verification": "Report of the checks on exactly this wheel, on this Python",
    "release": "What was published where, with hashes",
}
NEEDS = {
    "source": (),
    "torch_env": ("source",),
    "metadata": ("source",),
    "wheel": ("source", "torch_env", "metadata", "toolchain"),
    "verification": ("wheel",),
    "release": ("verification",),
}
PER_VARIANT = frozenset({"metadata", "wheel", "verification", "release"})


def key(kind: str, variant: str | None) -> dg.AssetKey:
    """Asset key of a kind of piece: the variant is in it where the piece belongs to one."""
    return dg.AssetKey([kind, variant] if variant and kind in PER_VARIANT else [kind])


def code_version(variant: str | None) -> str:
    """Changes with the variant's data; the core's own fingerprints notice everything else."""
    return fingerprint(asdict(variants()[variant]) if variant else {})[:12]


def all_assets() -> list[dg.AssetsDefinition]:
    """Every asset of the graph, but for the observed toolchain."""
    shared = [piece_asset(kind, None) for kind in NEEDS if kind not in PER_VARIANT]
    return shared + [piece_asset(kind, name) for name in variants() for kind in NEEDS if kind in PER_VARIANT]


def piece_asset(kind: str, variant: str | None) -> dg.AssetsDefinition:
    """The asset of a kind of piece, for a variant where it belongs to one."""

    @dg.asset(
        key=key(kind, variant),
        deps=[key(needed, variant) for needed in NEEDS[kind]],
        partitions_def=PARTITIONS,
        group_name=variant or "shared",
        description=DESCRIPTIONS[kind],
        code_version=code_version(variant),
    )
    def body(
        context: dg.AssetExecutionContext, build_mode: BuildMode, build_options: BuildOptions
    ) -> dg.MaterializeResult[None]:
        with plain_failures():
            target = Target.parse(context.partition_key, variant)
            recorder = partial(record, context, context.asset_key)
            workshop = build_options.workshop(say=context.log.info, on_piece=recorder)
            if build_mode.dry_run:
                return planned(context, workshop, kind, target)
            return made(workshop, kind, target)

    return body


def made(workshop: Workshop, kind: str, target: Target) -> dg.MaterializeResult[None]:
    """Makes a piece and reports it.

    Raises:
        VllmWheelsError: any of the tree.
    """
    if kind == "release":
        require_publishable(workshop.ensure("wheel", target), workshop.ensure("verification", target))
    piece = workshop.ensure(kind, target)
    if kind in COMPANIONS:
        workshop.deliver(kind, target)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.data_version(piece)), metadata=report.metadata(piece)
    )


def planned(
    context: dg.AssetExecutionContext, workshop: Workshop, kind: str, target: Target
) -> dg.MaterializeResult[None]:
    """Logs what a real run would do; the result counts as an observation, so that nothing is recorded as built."""
    plans = workshop.plans("verification" if kind == "release" else kind, target)
    text = report.plans_as_markdown(plans)
    context.log.info(text)
    metadata: report.Metadata = {internals.OBSERVATION: dg.MetadataValue.bool(True), "plan": dg.MetadataValue.md(text)}
    return dg.MaterializeResult(metadata=metadata)


@contextmanager
def plain_failures() -> Iterator[None]:
    """Ends a step with an error's three lines in place of a traceback."""
    try:
        yield
    except VllmWheelsError as error:
        details: dict[str, str | int] = {
            "what": error.what,
            "why": error.why,
            "remedy": error.remedy,
            "exit_code": error.exit_code,
        }
        raise dg.Failure(description=str(error), metadata=details, allow_retries=False) from None


def record(
    context: dg.AssetExecutionContext,
    current: dg.AssetKey,
    target: Target,
    piece: Piece,
    made_now: bool,  # noqa: FBT001 - the core calls it by position
) -> None:
    """Records an upstream piece that a step made or found on the way, unless the instance knows that very content."""
    asset = key(piece.kind, target.variant)
    if asset == current or piece.kind not in DESCRIPTIONS:
        return
    version = report.data_version(piece)
    known = internals.latest_data_version(context.instance, asset, context.partition_key)
    if known == version and not made_now:
        return
    context.log_event(
        dg.AssetMaterialization(
            asset_key=asset,
            partition=context.partition_key,
            metadata=report.metadata(piece),
            tags=internals.version_tags(data=version, code=code_version(target.variant)),
        )
    )
