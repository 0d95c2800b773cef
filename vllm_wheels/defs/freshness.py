"""Whether the newest release that upstream offers is built and tried: an asset of its own, with a freshness policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.variants import variants
from vllm_wheels.core.window import supports
from vllm_wheels.defs import internals
from vllm_wheels.defs.assets import key
from vllm_wheels.defs.partitions import PYTHONS

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.window import Announced

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


def report_newest(instance: dg.DagsterInstance, found: Sequence[Announced], settings: Settings) -> bool:
    """Reports the newest announced release, if it is complete and was not reported in the last hours.

    Args:
        instance: knows what is made, and takes the report.
        found: announced releases, the newest first.
        settings: name the Pythons and variants that count.

    Returns:
        Whether it was reported.
    """
    if not found or not _complete(instance, found[0], settings):
        return False
    version = found[0].version
    last = instance.get_latest_materialization_event(dg.AssetKey(NAME))
    if last and last.asset_materialization and _still_said(last.timestamp, last.asset_materialization, version):
        return False
    metadata = {"release": dg.MetadataValue.text(version)}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=NAME, metadata=metadata))
    return True


def _still_said(timestamp: float, last: dg.AssetMaterialization, version: str) -> bool:
    age = datetime.now(UTC) - datetime.fromtimestamp(timestamp, UTC)
    return last.metadata["release"].value == version and age < SAID_AGAIN


def _complete(instance: dg.DagsterInstance, release: Announced, settings: Settings) -> bool:
    pythons = [one for one in settings.automation.pythons or PYTHONS if supports(release.requires_python, one)]
    return all(
        internals.latest_data_version(instance, key("verification", variant), f"{python}|{release.version}")
        for variant in settings.automation.variants or variants()
        for python in pythons
    )
