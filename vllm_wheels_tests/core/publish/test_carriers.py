"""While a token is used, no process carries it where others could look."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from vllm_wheels_tests.attacks.canary import TOKEN
from vllm_wheels_tests.attacks.test_secrets import SECONDS, VARIABLE
from vllm_wheels_tests.fixtures.building import command


def carriers(token: str) -> list[str]:
    """Processes whose environment or arguments hold a token."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            try:
                if token.encode() in (path / name).read_bytes():
                    found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def test_no_process_carries_the_token_while_it_is_being_used(environment, front):
    """While the index keeps an upload waiting, root itself finds the token in no environment and no argument list."""
    token = f"{TOKEN}-{os.getpid()}"
    given = {**environment, VARIABLE: token}
    front.faults = ["hang"]
    process = subprocess.Popen(
        command("publish", "--yes"), env=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + SECONDS
        while front.faults and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        assert not front.faults
        assert carriers(token) == []
    finally:
        process.kill()
        process.communicate()
