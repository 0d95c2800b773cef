"""Workers of Celery with disks of their own: one is killed in the middle of a compile, the queue, a disk fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_wheels.defs import home, partitions
from vllm_wheels_tests.defs.running_ui import until
from vllm_wheels_tests.defs.workplace import TARGET, Workplace
from vllm_wheels_tests.fixtures import team
from vllm_wheels_tests.fixtures.team import Team, Worker

pytestmark = pytest.mark.servers

RUN_SECONDS = 500


@pytest.fixture
def shared(tmp_path, settings_environment, monkeypatch) -> Iterator[Team]:
    """PostgreSQL, a queue and a bucket, and settings that lead there."""
    (tmp_path / "state").rename(tmp_path / "unused")
    with team.servers_of(tmp_path) as found:
        for name, value in found.variables.items():
            monkeypatch.setenv(name, value)
        partitions.register(home.instance(Workplace().settings), TARGET.release, TARGET.python)
        yield found


def compiled(*found: Worker) -> list[int]:
    return [len(list(each.store.artifacts("compiled"))) for each in found]


def made(*found: Worker, kind: str) -> set[float]:
    """When the artifacts of a kind were made that the workers have, each counted once."""
    return {artifact.made_at for each in found for artifact in each.store.artifacts(kind)}


def succeeds(started: subprocess.Popen[bytes], folder: Path) -> bool:
    status = started.wait(RUN_SECONDS)
    assert status == 0, (folder / "run.log").read_text()[-3000:]
    return True


def test_step_of_a_killed_worker_is_taken_over(shared, tmp_path):
    """One of two workers dies with -9 in the middle of a compile: the other takes the step, and the run succeeds."""
    run = team.materializing(tmp_path, "wheel/baseline", TARGET.partition)
    with team.worker(tmp_path, "one") as one, run as started:
        until(one.is_compiling, RUN_SECONDS, "a compile")
        one.kill()
        with team.worker(tmp_path, "two") as two:
            began = time.monotonic()
            assert succeeds(started, tmp_path)
            print(f"taken over and finished after {time.monotonic() - began:.0f} s")  # noqa: T201
            assert compiled(one, two) == [0, 1]
            assert list(two.store.artifacts("wheel"))


def test_variants_are_spread_over_workers_that_share_a_bucket(shared, tmp_path):
    """Two workers make two variants; what one made the other takes from the bucket, and nothing is made twice."""
    run = team.materializing(tmp_path, "*wheel/baseline,*wheel/avx512", TARGET.partition)
    with team.worker(tmp_path, "one") as one, team.worker(tmp_path, "two") as two:
        with run as started:
            assert succeeds(started, tmp_path)
        assert len(made(one, two, kind="compiled")) == 2
        assert len(made(one, two, kind="source")) == 1


@pytest.mark.whole
def test_restarted_queue_loses_no_step(shared, tmp_path):
    """Redis goes away in the middle of a compile and comes back: the run goes on, and nothing is compiled twice."""
    run = team.materializing(tmp_path, "wheel/baseline", TARGET.partition)
    with team.worker(tmp_path, "one") as one, run as started:
        until(one.is_compiling, RUN_SECONDS, "a compile")
        shared.queue.stop()
        time.sleep(3)
        shared.queue.start()
        assert succeeds(started, tmp_path)
        assert compiled(one) == [1]


@pytest.mark.whole
def test_worker_whose_disk_is_full_is_given_no_compile(shared, tmp_path):
    """What needs room waits for a worker that has some; the one without says what it has."""
    small = tmp_path / "one"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(small)], check=True)
    try:
        run = team.materializing(tmp_path, "wheel/baseline", TARGET.partition)
        with team.worker(tmp_path, "one") as one, team.worker(tmp_path, "two") as two:
            with run as started:
                assert succeeds(started, tmp_path)
            assert compiled(one, two) == [0, 1]
            assert "0.2 GB of disk" in one.said
    finally:
        subprocess.run(["umount", str(small)], check=True)
