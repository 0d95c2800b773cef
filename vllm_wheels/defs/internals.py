"""The only module that uses what Dagster does not promise to keep; a test notices when it moves (dagster.md)."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    CachingStaleStatusResolver,
    StaleStatus,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
    from dagster._core.event_api import EventLogRecord
    from sqlalchemy import Engine

AssetJob = UnresolvedAssetJobDefinition
"""What ``define_asset_job`` gives."""

OBSERVATION = SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
"""Metadata key that makes a result an observation: the step succeeds and nothing is recorded as built."""

KEY = "key"
"""Metadata entry that holds an artifact's key in the store."""

UNOBSERVED = "INITIAL"
"""Data version that Dagster takes for an external asset nobody has observed."""


def partitioned_check(
    asset: dg.AssetKey, *, name: str, description: str, blocking: bool, partitions: dg.PartitionsDefinition[str]
) -> dg.AssetCheckSpec:
    """A check that has a verdict of its own for each partition, which Dagster 1.13 offers as a preview."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name=name, asset=asset, description=description, blocking=blocking, partitions_def=partitions
        )


def version_tags(*, data: str, code: str | None = None) -> dict[str, str]:
    """Tags by which an event carries its versions."""
    tags = {DATA_VERSION_TAG: data, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    return tags if code is None else {**tags, CODE_VERSION_TAG: code}


def provenance_tags(instance: dg.DagsterInstance, needs: Mapping[dg.AssetKey, bool], partition: str) -> dict[str, str]:
    """Tags by which a materialization remembers what its inputs were, here: what the instance knows of them now.

    Of the keys of the inputs, True marks an observed one.
    """
    tags = {}
    for key, observed in needs.items():
        found = instance.get_latest_data_version_record(key, is_source=observed, partition_key=partition)
        tags[get_input_data_version_tag(key)] = _version(found) or UNOBSERVED
        tags[get_input_event_pointer_tag(key)] = str(found.storage_id) if found else NULL_EVENT_POINTER
    return tags


def latest_data_version(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str, *, observed: bool = False
) -> str | None:
    """Data version of the newest materialization, or observation, of a partition; None where there is none."""
    return _version(instance.get_latest_data_version_record(asset, is_source=observed, partition_key=partition))


def latest_key(instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str) -> str | None:
    """Store key of the artifact that the newest materialization of a partition reported; None where there is none."""
    found = instance.get_latest_data_version_record(asset, is_source=False, partition_key=partition)
    materialization = found.event_log_entry.asset_materialization if found else None
    value = materialization.metadata.get(KEY) if materialization else None
    return str(value.value) if value else None


def refresh_inputs(context: dg.AssetExecutionContext) -> None:
    """Lets a step's result remember its inputs as they are now, not as they were when the step began."""
    context.get_step_execution_context().fetch_external_input_asset_version_info()


def resolver(instance: dg.DagsterInstance, graph: AssetGraph) -> CachingStaleStatusResolver:
    """Dagster's resolver of stale status; it caches what it read, so make a new one for each decision."""
    return CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))


def not_fresh(judge: CachingStaleStatusResolver, partition: str, among: Iterable[dg.AssetKey]) -> set[dg.AssetKey]:
    """Assets of a partition that are missing or stale by themselves; see ``staleness.closure``."""
    return {key for key in among if judge.get_status(key, partition) is not StaleStatus.FRESH}


@contextmanager
def engines_from(make: Callable[..., Engine]) -> Iterator[None]:
    """Lets Dagster's storages take their SQLAlchemy engines from a function in place of ``create_engine``."""
    with patch.object(sqlite_event_log, "create_engine", make), patch.object(sqlite_run_storage, "create_engine", make):
        yield


def _version(found: EventLogRecord | None) -> str | None:
    version = extract_data_version_from_entry(found.event_log_entry) if found else None
    return version.value if version else None
