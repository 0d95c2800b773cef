"""The only module that uses what Dagster does not promise to keep; a test notices when it moves (dagster.md)."""

from __future__ import annotations

import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._utils.schedules import cron_string_iterator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
    from dagster._core.event_api import EventLogRecord
    from sqlalchemy import Engine
    from starlette.types import ASGIApp

AssetJob = UnresolvedAssetJobDefinition
"""What ``define_asset_job`` gives."""

OBSERVATION = SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
"""Metadata key that makes a result an observation: the step succeeds and nothing is recorded as built."""

KEY = "key"
"""Metadata entry that holds an artifact's key in the store."""

TELLING = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_OBSERVATION,
)
"""Events of which the newest makes up what Dagster shows of a partition."""

UNOBSERVED = "INITIAL"
"""Data version that Dagster takes for an external asset nobody has observed."""


@contextmanager
def web_application(workspace: Path) -> Iterator[ASGIApp]:
    """Dagster's web UI as an application, for a server of ours: its own command starts one that nothing guards."""
    # They load the whole of it, which only the web server needs.
    from dagster._core.workspace.context import WorkspaceProcessContext  # noqa: PLC0415
    from dagster._core.workspace.load_target import WorkspaceFileTarget  # noqa: PLC0415
    from dagster_webserver.app import create_app_from_workspace_process_context  # noqa: PLC0415
    from dagster_webserver.version import __version__  # noqa: PLC0415

    with dg.DagsterInstance.get() as instance:
        # Milliseconds, seconds, connections: the defaults of dagster-webserver.
        instance.optimize_for_webserver(15_000, 3600, 20)
        target = WorkspaceFileTarget(paths=[str(workspace)])
        with WorkspaceProcessContext(instance, version=__version__, workspace_load_target=target) as context:
            yield create_app_from_workspace_process_context(context)


def partitioned_check(
    asset: dg.AssetKey, *, name: str, description: str, partitions: dg.PartitionsDefinition[str]
) -> dg.AssetCheckSpec:
    """A check that has a verdict of its own for each partition, which Dagster 1.13 offers as a preview."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name=name, asset=asset, description=description, partitions_def=partitions)


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


def partitions_of_status(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str], among: dg.PartitionsDefinition[str]
) -> dict[str, str | None]:
    """Whether each partition is MATERIALIZED, FAILED or IN_PROGRESS as the web UI shows it; None for a missing one."""
    found = instance.get_status_by_partition(asset, partitions, among) or {}
    return {partition: status.value if (status := found.get(partition)) else None for partition in partitions}


def evaluations(instance: dg.DagsterInstance, run: str) -> Iterator[dg.AssetCheckEvaluation]:
    """What the checks of a run said."""
    for entry in instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        if entry.dagster_event:
            yield entry.dagster_event.asset_check_evaluation_data


def evaluations_before(
    instance: dg.DagsterInstance, newest: dg.AssetCheckEvaluation
) -> Iterator[dg.AssetCheckEvaluation]:
    """What a check had said of the same partition before its newest evaluation; nothing where that was its first."""
    _, *earlier = instance.event_log_storage.get_asset_check_execution_history(
        newest.asset_check_key,
        limit=2,
        status={AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED},
        partition_filter=PartitionKeyFilter(key=newest.partition),
    )
    return (record.evaluation for record in earlier if record.evaluation)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A materialization.

    Attributes:
        event: its number in the event log.
        inputs: of some inputs, what was recorded: data version and number of the event that it was read from.
    """

    at: float
    event: int
    version: str | None
    metadata: Mapping[str, object]
    inputs: Mapping[dg.AssetKey, tuple[str | None, str | None]]

    def is_from(self, need: dg.AssetKey, other: Made) -> bool:
        """Whether it was made from a materialization of an input, or from an equal one.

        The data version that Dagster itself records of a partitioned input is a hash of those of its partitions.
        """
        version, event = self.inputs.get(need, (None, None))
        return event == str(other.event) or (version is not None and version == other.version)


def newest(instance: dg.DagsterInstance, asset: dg.AssetKey, needs: Iterable[dg.AssetKey]) -> dict[str, Made]:
    """The newest materialization of each partition of an asset, in two questions to the database."""
    latest = instance.event_log_storage.get_latest_storage_id_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    if not latest:
        return {}
    chosen = dg.AssetRecordsFilter(asset_key=asset, storage_ids=list(latest.values()))
    found = {}
    for record in instance.fetch_materializations(chosen, limit=len(latest)).records:
        made = record.asset_materialization
        if made and made.partition:
            tags = made.tags or {}
            found[made.partition] = Made(
                at=record.timestamp,
                event=record.storage_id,
                version=tags.get(DATA_VERSION_TAG),
                metadata={name: value.value for name, value in made.metadata.items()},
                inputs={
                    need: (tags.get(get_input_data_version_tag(need)), tags.get(get_input_event_pointer_tag(need)))
                    for need in needs
                },
            )
    return found


def runs_of_newest_events(instance: dg.DagsterInstance) -> Iterator[str]:
    """Runs that the newest materialization, attempt at one, or observation of any partition comes from."""
    storage = instance.event_log_storage
    for asset in instance.all_asset_keys():
        for event_type in TELLING:
            latest = storage.get_latest_storage_id_by_partition(asset, event_type)
            if latest:
                chosen = dg.EventRecordsFilter(event_type, asset_key=asset, storage_ids=list(latest.values()))
                yield from (record.run_id for record in storage.get_event_records(chosen))


def remove_run(instance: dg.DagsterInstance, run: str) -> None:
    """Removes a run, its events and its logs."""
    instance.compute_log_manager.delete_logs(prefix=[run])
    instance.delete_run(run)
    if isinstance(instance.event_log_storage, sqlite_event_log.SqliteEventLogStorage):
        # Emptied, it would stay behind.
        Path(instance.event_log_storage.path_for_shard(run)).unlink(missing_ok=True)


def next_tick(
    instance: dg.DagsterInstance, schedule: str, *, cron: str, timezone: str, by_default: bool
) -> float | None:
    """When a schedule ticks next, in seconds since the epoch; None where it is switched off."""
    states = [state for state in instance.all_instigator_state() if state.instigator_name == schedule]
    if not (any(state.is_running for state in states) if states else by_default):
        return None
    return next(cron_string_iterator(time.time(), cron, timezone)).timestamp()


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


def not_fresh(
    judge: CachingStaleStatusResolver, partition: str, among: Iterable[dg.AssetKey]
) -> dict[dg.AssetKey, str]:
    """Assets of a partition that are missing or stale by themselves, and why; see ``staleness.closure``."""
    statuses = {key: judge.get_status(key, partition) for key in among}
    return {
        key: "missing" if status is StaleStatus.MISSING else _causes(judge, key, partition)
        for key, status in statuses.items()
        if status is not StaleStatus.FRESH
    }


def _causes(judge: CachingStaleStatusResolver, key: dg.AssetKey, partition: str) -> str:
    causes = judge.get_stale_causes(key, partition)
    said = (
        f"{each.dependency_asset_key.to_user_string()} moved" if each.dependency_asset_key else each.reason
        for each in causes
    )
    return "; ".join(dict.fromkeys(said))


@contextmanager
def engines_from(make: Callable[..., Engine]) -> Iterator[None]:
    """Lets Dagster's storages take their SQLAlchemy engines from a function in place of ``create_engine``."""
    with patch.object(sqlite_event_log, "create_engine", make), patch.object(sqlite_run_storage, "create_engine", make):
        yield


def _version(found: EventLogRecord | None) -> str | None:
    version = extract_data_version_from_entry(found.event_log_entry) if found else None
    return version.value if version else None
