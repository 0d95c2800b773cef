"""Compiles and test runs of several processes under one limit."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vllm_wheels.core.errors import StoreBusyError
from vllm_wheels.core.host.machine import jobs
from vllm_wheels.core.host.slots import slot
from vllm_wheels.core.settings import Settings

HOLD = """
import sys
from pathlib import Path
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.host.slots import slot
settings = Settings(state_folder=Path(sys.argv[1]))
with slot("compile", "compiled avx512 0.32.0", settings, lambda line: print(line, flush=True)):
    print("mine", flush=True)
    sys.stdin.read()
"""
WAITING = r"waiting since \d\d:\d\d:\d\d for a place to compile, of 1; held by: "
LEAST_PATIENCE = 2.0
"""Seconds within which Ctrl-C ends a wait."""


def configured(folder, **builder) -> Settings:
    return Settings(state_folder=folder, builder=builder)


@contextmanager
def another_process(folder) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process


def test_second_compile_of_another_process_waits_and_says_for_whom(tmp_path):
    """Two commands in two terminals do not put twice as many compilers on my machine, and I see which one works."""
    said: list[str] = []
    with another_process(tmp_path) as other:
        assert other.stdout.readline() == "mine\n"
        timer = threading.Timer(1.0, other.stdin.close)
        timer.start()
        with slot("compile", "compiled amxbf16 0.32.0", configured(tmp_path), said.append):
            pass
        assert other.wait(10) == 0
        timer.join()
    (line,) = said
    holder = rf"compiled avx512 0\.32\.0 \(process {other.pid} on .+, since \d\d:\d\d:\d\d\)"
    assert re.fullmatch(WAITING + holder, line)


def test_interruption_ends_a_wait(tmp_path):
    """Whoever presses Ctrl-C while a build waits for its turn has the prompt back at once."""
    with slot("compile", "mine", configured(tmp_path), print), another_process(tmp_path) as waiting:
        assert re.match(WAITING, waiting.stdout.readline())
        began = time.monotonic()
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(60) != 0
        assert time.monotonic() - began < LEAST_PATIENCE


def test_as_many_compiles_as_wanted_run_side_by_side(tmp_path):
    """Where two may run at the same time, the second does not wait, and the third does, and gives up in the end."""
    settings = configured(tmp_path, side_by_side=2, lock_seconds=0.1)
    said: list[str] = []
    with slot("compile", "one", settings, said.append), slot("compile", "two", settings, said.append):
        assert said == []
        with (
            pytest.raises(StoreBusyError, match="no place to compile"),
            slot("compile", "three", settings, said.append),
        ):
            pass
        with slot("trial", "four", settings, said.append):
            assert len(said) == 1


def test_compiles_side_by_side_share_the_jobs(tmp_path):
    """Two variants at the same time run no more jobs than one alone."""
    assert jobs(configured(tmp_path, max_jobs=8, side_by_side=2)) == 4
    assert jobs(configured(tmp_path, max_jobs=1, side_by_side=2)) == 1
