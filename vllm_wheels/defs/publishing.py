"""The release assets: one publishes its variant when the settings are armed, and refuses otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.errors import PublicationError, VllmWheelsError
from vllm_wheels.core.operations.delivery import deliver as put_out
from vllm_wheels.core.publish.candidate import candidates
from vllm_wheels.core.publish.receipt import deliver
from vllm_wheels.core.publish.release import Publisher, prepare, publishing_context, repositories
from vllm_wheels.defs.keys import JUDGED

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.publish.plan import ReleasePlan
    from vllm_wheels.core.publish.receipt import Receipt
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target


def published(builds: BuildGraph, target: Target, asset: dg.AssetKey) -> dg.MaterializeResult[None]:
    """Publishes the wheel of a target; every other variant must have passed as well.

    Raises:
        PublicationError: or one of its kinds; also where publishing is not armed or no repository is configured.
        VllmWheelsError: making the wheel or trying it failed.
    """
    put_out(builds, JUDGED, target)
    settings, name = builds.settings, str(target.variant)
    wheels = candidates(_on(settings, target.python), target.release, variants=(name,))
    if not settings.publish.armed:
        what = f"{wheels[0].path.name} is not published"
        raise PublicationError(what, why="publish.armed is off", remedy="set it, or: vllm-wheels publish --yes")
    prepared = prepare(settings, target.release, to=repositories(settings))
    context = publishing_context(settings, runner=builds.runner, find_builder=lambda: builds.builder, say=builds.say)
    (receipt,) = Publisher(context=context).publish(prepared, chosen=(name,))
    paths = deliver(receipt, settings.output_folder)
    return dg.MaterializeResult(
        asset_key=asset,
        data_version=dg.DataVersion(receipt.data_version),
        metadata={**_metadata(receipt), "receipt": dg.MetadataValue.path(str(paths[0]))},
    )


def plan_text(settings: Settings, target: Target) -> str:
    """What publishing would do now, as Markdown, or why it cannot be told yet."""
    try:
        prepared = prepare(settings, target.release, to=repositories(settings))
    except VllmWheelsError as error:
        return f"\n\n**release**: cannot be published yet: {error.what} ({error.why})"
    return "".join(f"\n\n{_table(stage.plan)}" for stage in prepared.stages)


def _on(settings: Settings, python: str) -> Settings:
    narrowed = settings.publish.model_copy(update={"required_pythons": (python,)})
    return settings.model_copy(update={"publish": narrowed})


def _table(plan: ReleasePlan) -> str:
    head = f"**release** {plan.version} on {plan.repository}: {plan.state}; next free: {plan.next_version}"
    rows = [f"| {file.file} | {file.action} | {file.why} |" for file in plan.files]
    tried = [f"- {file.file}: {file.tried}" for file in plan.files]
    return "\n".join([head, "", "| file | action | |", "|---|---|---|", *rows, "", *tried])


def _metadata(receipt: Receipt) -> dict[str, dg.MetadataValue]:
    return {
        "repository": dg.MetadataValue.text(receipt.repository),
        "version": dg.MetadataValue.text(receipt.version),
        "files": dg.MetadataValue.json([file.name for file in receipt.files]),
        "sha256": dg.MetadataValue.json(receipt.hashes),
        "not_tried_on": dg.MetadataValue.json({file.name: dict(file.without) for file in receipt.files}),
        "index": dg.MetadataValue.url(f"{receipt.index}{receipt.project}/"),
    }
