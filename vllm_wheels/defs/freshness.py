"""Whether the newest release that upstream offers is built and tried: an asset of its own, with a freshness policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.variants import variants
from vllm_wheels.defs import internals
from vllm_wheels.defs.keys import key

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

NAME = "newest_release"
LATE = timedelta(hours=72)
VERY_SOON = timedelta(hours=48)
SAID_AGAIN = timedelta(hours=6)


def spec() -> dg.AssetSpec:
    """The asset; the release sensor reports it for as long as the newest release is complete."""
    return dg.AssetSpec(
        NAME,
        group_name="shared",
        kinds={"observed"},
        description="The newest release of upstream is built and tried: every variant, every Python it supports",
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=LATE, warn_window=VERY_SOON),
    )


def report_newest(instance: dg.DagsterInstance, version: str, *, pythons: Sequence[str], settings: Settings) -> bool:
    """Reports the newest announced release, if it is complete and was not reported in the last hours.

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
    return all(
        internals.latest_data_version(instance, key("verification", variant), f"{python}|{version}")
        for variant in settings.automation.variants or variants()
        for python in pythons
    )
