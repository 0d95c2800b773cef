"""What a kill -9 left behind is found and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from vllm_wheels.core.host.ownership import VARIABLE, end_orphans, fate, owner


def sleeper(name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env={**os.environ, VARIABLE: name})


def name_of_a_process_that_ended() -> str:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = owner(process.pid)
        process.kill()
    return name


def test_living_process_lives_and_an_ended_one_is_gone():
    """The name of a process tells whether it is still there, also if its number comes again."""
    assert fate(owner(os.getpid())) == "lives"
    assert fate(name_of_a_process_that_ended()) == "gone"
    boot, namespace, pid, started = owner(os.getpid()).rsplit(" ", 3)
    assert fate(f"{boot} {namespace} {pid} {int(started) - 1}") == "gone"
    assert fate(f"another {namespace} {pid} {started}") == "other boot"


def test_only_orphans_are_ended():
    """A process of a living owner goes on; one whose owner is gone ends."""
    kept, orphan = sleeper(owner(os.getpid())), sleeper(name_of_a_process_that_ended())
    try:
        # Until exec, a child still shows the environment of its parent.
        deadline = time.monotonic() + 10
        while not end_orphans() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert orphan.wait(10) < 0
        assert kept.poll() is None
    finally:
        for process in (kept, orphan):
            process.kill()
            process.wait(10)
