"""Removes old runs with their events and logs; whatever the present state of an asset rests on stays."""

from __future__ import annotations

import time
from collections.abc import Iterator

import dagster as dg

from vllm_wheels.defs import internals
from vllm_wheels.defs.partitions import PARTITION_TAG

DAY = 86400.0


def prunable(instance: dg.DagsterInstance, *, days: float, keep: int) -> list[str]:
    """Runs that ended and are older than some days, or not among the newest; the oldest first.

    The run of each newest materialization and observation stays, for they would go with it; and the newest run of each
    partition, which tells why something failed.
    """
    needed = set(internals.runs_of_newest_events(instance))
    before, found, seen = time.time() - days * DAY, [], set()
    for index, record in enumerate(instance.get_run_records()):
        run, partition = record.dagster_run, record.dagster_run.tags.get(PARTITION_TAG)
        is_newest = partition is not None and partition not in seen
        seen.add(partition)
        is_old = index >= keep or record.create_timestamp.timestamp() < before
        if run.is_finished and is_old and not is_newest and run.run_id not in needed:
            found.append(run.run_id)
    return found[::-1]


def prune(instance: dg.DagsterInstance, runs: list[str]) -> Iterator[str]:
    """Removes runs one by one, and gives each that is gone; servers and other runs may go on meanwhile."""
    for run in runs:
        internals.remove_run(instance, run)
        yield run
