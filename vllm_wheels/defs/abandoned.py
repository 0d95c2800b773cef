"""Ends the runs whose process is gone: after a kill -9 they would seem to work on their partition for ever."""

from __future__ import annotations

import multiprocessing
import os
import platform
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.host.ownership import fate, owner

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER_TAG = "vllm-wheels/owner"
"""Tag of a run with the name of the process that executes its steps."""

HOST_TAG = "vllm-wheels/host"
"""Tag of a run with the machine's name, since only there an earlier boot tells that the process is gone."""

UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def sign(context: dg.AssetExecutionContext) -> None:
    """Tags a step's run with this process where it is the run's own; the daemon watches those that it launched."""
    if multiprocessing.parent_process() is not None:
        return
    context.instance.add_run_tags(context.run.run_id, {OWNER_TAG: owner(os.getpid()), HOST_TAG: platform.node()})


def settle(instance: dg.DagsterInstance, say: Callable[[str], None]) -> None:
    """Marks the runs of vanished processes as failed."""
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED)):
        if not _is_abandoned(run):
            continue
        say(f"run {run.run_id[:8]} was left behind by a process that is gone: marked as failed")
        instance.report_run_failed(run, "the process that executed this run is gone")


def _is_abandoned(run: dg.DagsterRun) -> bool:
    name = run.tags.get(OWNER_TAG)
    if name is None:
        return False
    became = fate(name)
    return became == "gone" or (became == "other boot" and run.tags.get(HOST_TAG) == platform.node())
