"""The only module that uses what Dagster does not promise to keep; a test notices when it moves (dagster.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    extract_data_version_from_entry,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

if TYPE_CHECKING:
    import dagster as dg

OBSERVATION = SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
"""Metadata key that makes a result an observation: the step succeeds and nothing is recorded as built."""


def version_tags(*, data: str, code: str) -> dict[str, str]:
    """Tags by which a materialization event carries its versions."""
    return {DATA_VERSION_TAG: data, CODE_VERSION_TAG: code}


def latest_data_version(instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str) -> str | None:
    """Data version of the newest materialization of a partition; None where there is none."""
    found = instance.get_latest_data_version_record(asset, is_source=False, partition_key=partition)
    version = extract_data_version_from_entry(found.event_log_entry) if found else None
    return version.value if version else None
