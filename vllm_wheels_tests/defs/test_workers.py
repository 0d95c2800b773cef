"""Workers of Celery: two with disks of their own, of which one is killed in the middle of a compile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.host.signing import generate
from vllm_wheels.defs import home, partitions
from vllm_wheels_tests.defs.running_ui import until
from vllm_wheels_tests.defs.workplace import TARGET, Workplace
from vllm_wheels_tests.fixtures import servers

pytestmark = pytest.mark.servers

REQUEUE_SECONDS = 20
RUN_SECONDS = 500


@dataclass(frozen=True)
class Worker:
    """A worker and its disk."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def store(self) -> Store:
        return Store(self.folder / "state" / "store")

    def is_compiling(self) -> bool:
        return any((self.store.root / "staging").glob("compiled-*"))

    def kill(self) -> None:
        """Kills it and its children with -9, as a power cut does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def shared(tmp_path, settings_environment, monkeypatch) -> Iterator[None]:
    """PostgreSQL, a queue and a bucket, and settings that lead there."""
    (tmp_path / "state").rename(tmp_path / "unused")
    office = generate(tmp_path / "office.pem")
    (tmp_path / "home").mkdir()
    with servers.postgresql() as port, servers.redis(tmp_path) as queue, servers.s3(tmp_path) as bucket:
        database = {"hostname": "127.0.0.1", "username": "dagster", "password": "", "db_name": "dagster", "port": port}
        instance = {
            "storage": {"postgres": {"postgres_db": database}},
            "telemetry": {"enabled": False},
        }
        (tmp_path / "home" / "dagster.yaml").write_text(json.dumps(instance))
        values = {
            "DAGSTER_HOME": str(tmp_path / "home"),
            "VLLM_WHEELS_WORKERS__ENGINE": "celery",
            "VLLM_WHEELS_WORKERS__BROKER": queue,
            "VLLM_WHEELS_WORKERS__REQUEUE_SECONDS": str(REQUEUE_SECONDS),
            "VLLM_WHEELS_STORE__REMOTES": json.dumps({"bucket": {"url": bucket, "push": True}}),
            "VLLM_WHEELS_STORE__SIGNING_KEY": str(tmp_path / "office.pem"),
            "VLLM_WHEELS_STORE__TRUSTED_KEYS": json.dumps({"office": office.public}),
            **servers.KEYS,
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        partitions.register(home.instance(Workplace().settings), TARGET.release, TARGET.python)
        yield


@contextmanager
def worker(tmp_path: Path, name: str) -> Iterator[Worker]:
    folder = tmp_path / name
    folder.mkdir()
    own = {
        "VLLM_WHEELS_STATE_FOLDER": str(folder / "state"),
        "VLLM_WHEELS_OUTPUT_FOLDER": str(folder / "wheels"),
    }
    program = str(Path(sys.executable).with_name("vllm-wheels"))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "worker", "--name", name],
            env={**os.environ, **own},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            until(lambda: " ready." in (folder / "log").read_text(), 120, f"worker {name}")
            yield Worker(folder, process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)


@contextmanager
def run(tmp_path: Path, selection: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose steps the workers carry out."""
    argv = (sys.executable, "-m", "dagster", "asset", "materialize", "-m", "vllm_wheels.definitions")
    with (tmp_path / "run.log").open("w") as log:
        started = subprocess.Popen(
            [*argv, "--select", selection, "--partition", TARGET.partition], stdout=log, stderr=log
        )
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def compiled(*found: Worker) -> list[int]:
    return [len(list(each.store.artifacts("compiled"))) for each in found]


def test_step_of_a_killed_worker_is_taken_over(shared, tmp_path):
    """One of two workers dies with -9 in the middle of a compile: the other takes the step, and the run succeeds."""
    with worker(tmp_path, "one") as one, run(tmp_path, "wheel/baseline") as started:
        until(one.is_compiling, RUN_SECONDS, "a compile")
        one.kill()
        with worker(tmp_path, "two") as two:
            began = time.monotonic()
            assert started.wait(RUN_SECONDS) == 0, (tmp_path / "run.log").read_text()[-3000:]
            print(f"taken over and finished after {time.monotonic() - began:.0f} s")  # noqa: T201
            assert compiled(one, two) == [0, 1]
            assert list(two.store.artifacts("wheel"))


def test_variants_are_spread_over_workers_that_share_a_bucket(shared, tmp_path):
    """Two workers make two variants; what one made the other takes from the bucket, and nothing is made twice."""
    with worker(tmp_path, "one") as one, worker(tmp_path, "two") as two:
        with run(tmp_path, "*wheel/baseline,*wheel/avx512") as started:
            assert started.wait(RUN_SECONDS) == 0, (tmp_path / "run.log").read_text()[-3000:]
        assert len(_made(one, two, kind="compiled")) == 2
        assert len(_made(one, two, kind="source")) == 1


def _made(*found: Worker, kind: str) -> set[float]:
    """When the artifacts of a kind were made that the workers have, each counted once."""
    return {artifact.made_at for each in found for artifact in each.store.artifacts(kind)}
