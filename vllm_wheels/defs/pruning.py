"""Removes old runs with their events and logs; whatever the present state of an asset rests on stays."""

from __future__ import annotations

import time
from collections.abc import Iterator

import dagster as dg

from vllm_wheels.defs import internals

DAY = 86400.0


def prunable(instance: dg.DagsterInstance, *, days: float, keep: int) -> list[str]:
    """Runs that ended and are older than some days, or not among the newest; the oldest first.

    The runs stay that each newest materialization, observation, or attempt at a partition comes from: with them would
    go what the web UI shows of it.
    """
    needed, before = set(internals.runs_of_newest_events(instance)), time.time() - days * DAY
    found = [
        record.dagster_run.run_id
        for index, record in enumerate(instance.get_run_records())
        if record.dagster_run.is_finished
        and (index >= keep or record.create_timestamp.timestamp() < before)
        and record.dagster_run.run_id not in needed
    ]
    return found[::-1]


def prune(instance: dg.DagsterInstance, runs: list[str]) -> Iterator[str]:
    """Removes runs one by one, and gives each that is gone; servers and other runs may go on meanwhile."""
    for run in runs:
        internals.remove_run(instance, run)
        yield run
