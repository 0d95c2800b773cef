"""What the nightly rebuild does: looks at the inputs outside, then requests exactly what is stale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine.code import files_on_disk
from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.operations.tracked_releases import targets
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant, variants
from vllm_wheels.defs import abandoned, staleness, tags
from vllm_wheels.defs.held import held_back, without
from vllm_wheels.defs.keys import RELEASE, key, kinds, per_variant
from vllm_wheels.defs.partitions import PARTITION_TAG, PYTHONS, register, registered

LOADED = files_on_disk()
"""Of the code location that evaluates the schedule; runs are new processes, whose code may be newer."""

UPDATED = (
    "vllm-wheels was updated after this code location was loaded, so that it no longer knows what runs would make:"
    " reload it (in the web UI under Deployment), or start vllm-wheels ui anew"
)

UNFINISHED = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *abandoned.UNFINISHED)


def kept_up_to_date(settings: Settings) -> list[dg.AssetKey]:
    """Assets that are made without anybody asking: of the chosen variants; releases only where publishing is armed."""
    names = [variant(name).name for name in settings.automation.variants] or list(variants())
    wanted = [kind for kind in kinds() if kind != RELEASE or settings.publish.armed]
    shared = [key(kind, None) for kind in wanted if not per_variant(kind)]
    return shared + [key(kind, name) for name in names for kind in wanted if per_variant(kind)]


def tracked(instance: dg.DagsterInstance, builds: BuildGraph) -> list[Target]:
    """Partitions that are kept up to date, made known to the instance where they are not.

    See ``core.operations.tracked_releases.targets`` for what it raises.
    """
    chosen = targets(registered(instance), pythons=PYTHONS, settings=builds.settings, store=builds.store)
    for target in chosen:
        register(instance, target.release, target.python)
    return chosen


def stale_requests(
    instance: dg.DagsterInstance, graph: AssetGraph, chosen: Sequence[Target], builds: BuildGraph, *, tick: str
) -> list[dg.RunRequest]:
    """One request per partition with something stale that no unfinished run is working on.

    What failed is left alone until an input moves, or after a fault that may pass for a while; that is said.

    ``tick`` names this night, so that a tick that is evaluated twice requests nothing twice.
    """
    at_work = busy(instance)
    idle = {target.partition: target for target in chosen if target.partition not in at_work}
    stale = staleness.closure(instance, graph, idle, kept_up_to_date(builds.settings))
    requests = []
    for partition, assets in stale.items():
        held = held_back(builds, idle[partition])
        for failure in held.values():
            builds.say(f"left alone: {failure.error.what} ({failure.error.why})")
        if wanted := without(assets, held):
            requests.append(request(f"{tick} {partition}", idle[partition], wanted, asked_by="nightly"))
    return requests


def request(run_key: str, target: Target, why: Mapping[dg.AssetKey, str], *, asked_by: str) -> dg.RunRequest:
    """A run for a partition, whose tags say who asked for it, and why for each asset."""
    return dg.RunRequest(
        run_key=run_key,
        partition_key=target.partition,
        asset_selection=list(why),
        tags={tags.AUTOMATIC: asked_by, **tags.of(target, why), **tags.reasons(why)},
    )


def busy(instance: dg.DagsterInstance) -> set[str]:
    """The partitions that some unfinished run is working on."""
    runs: Iterable[dg.DagsterRun] = instance.get_runs(filters=dg.RunsFilter(statuses=list(UNFINISHED)))
    return {run.tags[PARTITION_TAG] for run in runs if PARTITION_TAG in run.tags}


def nightly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """One night's tick; none where runs would have other code than what decides about them."""
    if files_on_disk() != LOADED:
        return dg.SkipReason(UPDATED)
    current = configuration.load()
    builds = build_graph(current, say=context.log.info)
    chosen = tracked(context.instance, builds)
    moved = staleness.observe(context.instance, builds, chosen, context.log.warning)
    for partition, names in moved.items():
        context.log.info("%s: moved since last observed: %s", partition, ", ".join(names))
    graph, tick = context.repository_def.asset_graph, context.scheduled_execution_time.isoformat()
    requests = stale_requests(context.instance, graph, chosen, builds, tick=tick)
    return requests or dg.SkipReason(
        f"nothing is stale in {len(chosen)} partitions, or a run is at it, or it failed and nothing has moved since"
    )
