"""While a token is used, no process carries it where others could look."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

from vllm_wheels_tests.attacks.test_secrets import SECONDS
from vllm_wheels_tests.fixtures.building import command


def family(process: int) -> set[int]:
    """A process and all that it or its children started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    members = {process}
    while more := {child for child, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def carriers(token: str, processes: set[int]) -> list[str]:
    """Those of some processes whose environment or arguments hold a token."""
    found = []
    for path in (Path("/proc", str(process)) for process in processes):
        for name in ("environ", "cmdline"):
            with suppress(OSError):
                if token.encode() in (path / name).read_bytes():
                    found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_no_process_carries_the_token_while_it_is_being_used(environment, front):
    """While the index keeps an upload waiting, root itself finds the token in no environment and no argument list."""
    token = front.backend.password
    front.faults = ["hang"]
    process = subprocess.Popen(
        command("publish", "--yes"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + SECONDS
        while front.faults and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        assert not front.faults, process.poll() is not None and process.communicate()
        members = family(process.pid)
        assert len(members) > 1
        assert carriers(token, members) == []
    finally:
        process.kill()
        process.communicate()
