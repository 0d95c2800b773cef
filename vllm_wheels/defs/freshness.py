"""Whether the newest release that upstream offers is built and tried: an asset of its own, with a freshness policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.variants import variants
from vllm_wheels.defs import internals
from vllm_wheels.defs.keys import JUDGED, key
from vllm_wheels.defs.partitions import PARTITIONS

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

NAME = "newest_release"
LATE = timedelta(hours=72)
SAID_AGAIN = timedelta(minutes=30)
TICKS_MISSED = 2
"""After so many ticks of the sensor at which the newest release was not complete the badge warns."""


def spec(settings: Settings) -> dg.AssetSpec:
    """The asset; the release sensor reports it for as long as the newest release is complete."""
    quiet = TICKS_MISSED * max(timedelta(seconds=settings.automation.watch_seconds), SAID_AGAIN)
    return dg.AssetSpec(
        NAME,
        group_name="shared",
        kinds={"observed"},
        description="The newest release of upstream is built and passed: every variant, every Python it supports",
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=LATE + quiet, warn_window=quiet),
    )


def report_newest(instance: dg.DagsterInstance, version: str, *, pythons: Sequence[str], settings: Settings) -> bool:
    """Reports the newest announced release, if it is complete and was not reported just now.

    Returns:
        Whether it was reported.
    """
    if not _complete(instance, version, pythons, settings):
        return False
    last = instance.get_latest_materialization_event(dg.AssetKey(NAME))
    if last and last.asset_materialization and _still_said(last.timestamp, last.asset_materialization, version):
        return False
    metadata = {"release": dg.MetadataValue.text(version)}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=NAME, metadata=metadata))
    return True


def _still_said(timestamp: float, last: dg.AssetMaterialization, version: str) -> bool:
    age = datetime.now(UTC) - datetime.fromtimestamp(timestamp, UTC)
    return last.metadata["release"].value == version and age < SAID_AGAIN


def _complete(instance: dg.DagsterInstance, version: str, pythons: Sequence[str], settings: Settings) -> bool:
    partitions = [f"{python}|{version}" for python in pythons]
    return all(_passed(instance, variant, partitions) for variant in settings.automation.variants or variants())


def _passed(instance: dg.DagsterInstance, variant: str, partitions: Sequence[str]) -> bool:
    """Whether the wheels that there are now passed: only such verifications are materialized."""
    judged, wheel = key(JUDGED, variant), key("wheel", variant)
    found = internals.partitions_of_status(instance, judged, partitions, PARTITIONS)
    verdicts, wheels = internals.newest(instance, judged, [wheel]), internals.newest(instance, wheel, [])
    return set(found.values()) == {"MATERIALIZED"} and all(
        partition in wheels and partition in verdicts and verdicts[partition].is_from(wheel, wheels[partition])
        for partition in partitions
    )
