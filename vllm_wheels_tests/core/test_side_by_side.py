"""Compiles of several processes under one limit."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from vllm_wheels.core.errors import StoreBusyError
from vllm_wheels.core.host.compile_slots import compile_slot
from vllm_wheels.core.host.machine import jobs
from vllm_wheels.core.settings import Settings

HOLD = """
import sys
from pathlib import Path
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.host.compile_slots import compile_slot
with compile_slot(Settings(state_folder=Path(sys.argv[1])), print):
    print("mine", flush=True)
    sys.stdin.read()
"""


def configured(folder, **builder) -> Settings:
    return Settings(state_folder=folder, builder=builder)


def test_second_compile_of_another_process_waits_and_says_so(tmp_path):
    """Two commands in two terminals do not put twice as many compilers on my machine."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "mine\n"
    said: list[str] = []
    timer = threading.Timer(1.0, other.stdin.close)
    timer.start()
    with compile_slot(configured(tmp_path), said.append):
        pass
    assert said == ["waiting until fewer than 1 other compiles run (builder.side_by_side)"]
    assert other.wait(10) == 0
    other.stdout.close()
    timer.join()


def test_as_many_compiles_as_wanted_run_side_by_side(tmp_path):
    """Where two may run at the same time, the second does not wait, and the third does."""
    settings = configured(tmp_path, side_by_side=2, lock_seconds=0.1)
    said: list[str] = []
    with compile_slot(settings, said.append), compile_slot(settings, said.append):
        assert said == []
        with pytest.raises(StoreBusyError), compile_slot(settings, said.append):
            pass


def test_compiles_side_by_side_share_the_jobs(tmp_path):
    """Two variants at the same time run no more jobs than one alone."""
    assert jobs(configured(tmp_path, max_jobs=8, side_by_side=2)) == 4
    assert jobs(configured(tmp_path, max_jobs=1, side_by_side=2)) == 1
