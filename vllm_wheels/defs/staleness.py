"""Which assets of which partitions are stale: observes the inputs from outside, then follows Dagster's graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.variants import variants
from vllm_wheels.defs import inputs, internals
from vllm_wheels.defs.keys import key

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.target import Target

THREADS = 4
"""Looking is mostly waiting for uv and for servers."""


def observe(
    instance: dg.DagsterInstance, builds: BuildGraph, targets: Sequence[Target], say: Callable[[str], None]
) -> dict[str, list[str]]:
    """Observes the inputs from outside and records those that changed.

    Only partitions whose source is known are looked at: of others everything is missing anyway.

    What cannot be looked at is said, and stays as it was.

    Returns:
        Names of the moved inputs by partition.
    """
    made = [
        target for target in targets if internals.latest_data_version(instance, key("source", None), target.partition)
    ]
    moved: dict[str, list[str]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for target, versions in zip(made, pool.map(lambda target: _look(builds, target, say), made), strict=True):
            for asset, version in versions.items():
                if _record(instance, asset, target.partition, version):
                    moved.setdefault(target.partition, []).append(asset.to_user_string())
    return moved


def closure(
    instance: dg.DagsterInstance, graph: AssetGraph, partitions: Iterable[str], among: Iterable[dg.AssetKey]
) -> dict[str, dict[dg.AssetKey, str]]:
    """Assets that are missing or stale, or downstream of one that is, and why, by partition.

    There is no entry for an up-to-date partition.

    Dagster's own status looks at direct inputs only, and its ``stale_assets_only`` never fires for partitioned assets
    (dagster.md, "Staleness").
    """
    wanted = set(among)
    order = [asset for asset in graph.toposorted_asset_keys if asset in wanted]
    judge = internals.resolver(instance, graph)
    found = {}
    for partition in partitions:
        stale = internals.not_fresh(judge, partition, order)
        for asset in order:
            if asset not in stale and (first := stale.keys() & graph.get(asset).parent_keys):
                stale[asset] = f"{min(first).to_user_string()} is made again"
        if stale:
            found[partition] = {asset: stale[asset] for asset in order if asset in stale}
    return found


def _look(builds: BuildGraph, target: Target, say: Callable[[str], None]) -> Mapping[dg.AssetKey, str]:
    found: dict[dg.AssetKey, str] = {}
    for name in variants():
        try:
            found |= inputs.look(builds, replace(target, variant=name))
        except VllmWheelsError as error:
            say(f"{target.partition}: inputs of {name} cannot be observed: {error.what} ({error.why})")
    return found


def _record(instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str, version: str) -> bool:
    if internals.latest_data_version(instance, asset, partition, observed=True) == version:
        return False
    tags = internals.version_tags(data=version)
    observation = dg.AssetObservation(asset_key=asset, partition=partition, tags=tags)
    instance.report_runless_asset_event(observation)
    return True
