"""What earlier runs of a partition came to, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

import dagster as dg

from vllm_wheels.core.errors import FailedBeforeError
from vllm_wheels.defs.partitions import PARTITION_TAG

if TYPE_CHECKING:
    from dagster._core.events import DagsterEvent

LOOK_BACK = 20
"""Runs of a partition among which the one before is looked for."""

ENDS = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_SUCCESS}


def steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str | None]:
    """The steps that a run ended: None for a success, else the reason of the failure."""
    found: dict[str, str | None] = {}
    for entry in instance.all_logs(run.run_id, of_type=ENDS):
        event = entry.dagster_event
        if event and event.step_key:
            found[event.step_key] = reason(event) if event.is_step_failure else None
    return found


def reason(event: DagsterEvent) -> str:
    """Why a step failed."""
    data = event.step_failure_data
    said = data.user_failure_data.description if data.user_failure_data else data.error and data.error.message
    return said or "no reason given"


def is_repeated(event: DagsterEvent) -> bool:
    """Whether a step did nothing but say that the same failed before."""
    data = event.step_failure_data.user_failure_data
    code = data.metadata.get("exit_code") if data else None
    return code is not None and code.value == FailedBeforeError.exit_code


def before(instance: dg.DagsterInstance, run: dg.DagsterRun, step: str) -> str | None:
    """Why a step failed the last time before a run; None where it did not, or was never carried out."""
    for earlier in _earlier(instance, run):
        found = steps(instance, earlier)
        if step in found:
            return found[step]
    return None


def _earlier(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[dg.DagsterRun]:
    partition = run.tags.get(PARTITION_TAG)
    if partition is None:
        return
    newest_first = instance.get_runs(filters=dg.RunsFilter(tags={PARTITION_TAG: partition}), limit=LOOK_BACK)
    for earlier in list(dropwhile(lambda each: each.run_id != run.run_id, newest_first))[1:]:
        if not _is_dry(earlier):
            yield earlier


def _is_dry(run: dg.DagsterRun) -> bool:
    config: Any = run.run_config
    mode = config.get("resources", {}).get("build_mode", {})
    return bool(mode.get("config", {}).get("dry_run"))
