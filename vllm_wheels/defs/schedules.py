"""The nightly rebuild of what is stale, and the job that it and the sensors request."""

# No `from __future__ import annotations`: Dagster reads the annotations of a schedule's function.
from collections.abc import Iterable, Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant, variants
from vllm_wheels.core.window import targets
from vllm_wheels.core.workshop import Workshop
from vllm_wheels.defs import staleness
from vllm_wheels.defs.assets import NEEDS, PER_VARIANT, all_keys, key
from vllm_wheels.defs.partitions import DIMENSION, PYTHONS

STEPS_AT_ONCE = 4
"""Variants side by side; the pools keep two of them from compiling, or trying, at the same time."""

PARTITION_TAG = "dagster/partition"
UNFINISHED = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

# Lower-case, so that Dagster's own implicit job sorts before it (dagster.md, "Running").
rebuild = dg.define_asset_job(
    "rebuild",
    selection=dg.AssetSelection.assets(*all_keys()),
    description="Makes the chosen pieces of one release and Python, variants side by side",
    executor_def=dg.multiprocess_executor.configured({"max_concurrent": STEPS_AT_ONCE}, name="side_by_side"),
)


def kept_up_to_date(settings: Settings) -> list[dg.AssetKey]:
    """Assets that are made without anybody asking: of the chosen variants; releases only where publishing is armed."""
    names = [variant(name).name for name in settings.automation.variants] or list(variants())
    kinds = [kind for kind in NEEDS if kind != "release" or settings.publish.armed]
    shared = [key(kind, None) for kind in kinds if kind not in PER_VARIANT]
    return shared + [key(kind, name) for name in names for kind in kinds if kind in PER_VARIANT]


def window(instance: dg.DagsterInstance, workshop: Workshop) -> list[Target]:
    """Partitions that are kept up to date; see ``core.window.targets`` for what it raises."""
    registered = instance.get_dynamic_partitions(DIMENSION)
    return targets(registered, pythons=PYTHONS, settings=workshop.settings, store=workshop.store)


def stale_requests(
    instance: dg.DagsterInstance, graph: AssetGraph, chosen: Sequence[Target], settings: Settings
) -> list[dg.RunRequest]:
    """One request per partition with something stale that no unfinished run is working on.

    What failed yesterday is still missing or stale, and so is requested again.
    """
    busy = _busy(instance)
    idle = [target.partition for target in chosen if target.partition not in busy]
    stale = staleness.closure(instance, graph, idle, kept_up_to_date(settings))
    return [dg.RunRequest(partition_key=partition, asset_selection=assets) for partition, assets in stale.items()]


def _busy(instance: dg.DagsterInstance) -> set[str]:
    runs: Iterable[dg.DagsterRun] = instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED)))
    return {run.tags[PARTITION_TAG] for run in runs if PARTITION_TAG in run.tags}


def nightly_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """The nightly schedule, at the time that the settings name."""
    wishes = settings.automation
    status = dg.DefaultScheduleStatus.RUNNING if wishes.enabled else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        name="nightly",
        job=rebuild,
        cron_schedule=wishes.nightly,
        execution_timezone=wishes.timezone,
        default_status=status,
        description="Looks at the inputs outside, then requests exactly what is stale, partition by partition",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        current = configuration.load()
        workshop = Workshop(settings=current, say=context.log.info)
        chosen = window(context.instance, workshop)
        moved = staleness.observe(context.instance, workshop, chosen, context.log.warning)
        for partition, names in moved.items():
            context.log.info("%s: moved since last observed: %s", partition, ", ".join(names))
        requests = stale_requests(context.instance, context.repository_def.asset_graph, chosen, current)
        return requests or dg.SkipReason(f"nothing is stale in {len(chosen)} partitions, or a run is at it already")

    return nightly
