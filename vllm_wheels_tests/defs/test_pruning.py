"""Old runs go, with their events and logs; what is true now stays."""

from __future__ import annotations

import time

import dagster as dg
import pytest

from vllm_wheels.defs import internals, partitions, pruning
from vllm_wheels.defs.keys import key

ASSET = key("wheel", "baseline")


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        partitions.register(found, "0.32.0", "3.11", "3.12")
        yield found


def night(instance, partition: str, *, fails: bool = False) -> str:
    """A run that makes one partition, or tries to."""

    @dg.asset(key=ASSET, partitions_def=partitions.PARTITIONS)
    def wheel() -> None:
        if fails:
            raise dg.Failure

    return dg.materialize([wheel], partition_key=partition, instance=instance, raise_on_error=False).run_id


def test_runs_that_nothing_rests_on_are_old(instance):
    """Of many nights those go that something newer has taken the place of."""
    first = night(instance, "3.11|0.32.0")
    second = night(instance, "3.11|0.32.0")
    failed = [night(instance, "3.12|0.32.0", fails=True) for _ in range(3)]
    assert pruning.prunable(instance, days=1, keep=9) == []
    assert pruning.prunable(instance, days=0, keep=9) == [first, *failed[:2]]
    assert pruning.prunable(instance, days=1, keep=3) == [first]
    assert second not in pruning.prunable(instance, days=0, keep=0)


def test_pruning_changes_no_light(instance):
    """What was materialized is so afterwards, and what failed shows why."""
    night(instance, "3.11|0.32.0")
    night(instance, "3.11|0.32.0")
    night(instance, "3.12|0.32.0", fails=True)
    night(instance, "3.12|0.32.0", fails=True)
    both = ["3.11|0.32.0", "3.12|0.32.0"]
    before = internals.partitions_of_status(instance, ASSET, both, partitions.PARTITIONS)
    old = pruning.prunable(instance, days=0, keep=0)
    assert list(pruning.prune(instance, old)) == old
    assert {record.dagster_run.run_id for record in instance.get_run_records()}.isdisjoint(old)
    assert internals.partitions_of_status(instance, ASSET, both, partitions.PARTITIONS) == before
    assert before == {"3.11|0.32.0": "MATERIALIZED", "3.12|0.32.0": "FAILED"}


def test_run_that_goes_on_is_never_old(instance):
    """Nobody loses the run that is building right now."""
    instance.add_run(dg.DagsterRun(job_name="rebuild", run_id="1" * 8, status=dg.DagsterRunStatus.STARTED))
    time.sleep(0.01)
    assert pruning.prunable(instance, days=0, keep=0) == []
