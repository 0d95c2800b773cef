"""Foreign code runs where it sees nothing of this host: no network, no files, no variables, and limits."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from vllm_wheels.core.errors import MachineError
from vllm_wheels.core.host import limits, sandbox
from vllm_wheels.core.host.ownership import NOBODY
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.host.sandbox import Sandbox, no_variables
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.verdicts import verify
from vllm_wheels_tests.fixtures.broken_wheels import Recipe

LOOK = """
import json, os, resource, socket, sys
def reaches():
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2).close()
    except OSError:
        return False
    return True
def first():
    try:
        return open("/proc/1/environ", "rb").read().decode()
    except PermissionError:
        return ""
print(json.dumps({
    "network": reaches(),
    "secret": os.path.exists(sys.argv[2]),
    "variables": sorted(os.environ),
    "first": first(),
    "user": os.getuid(),
    "processes": resource.getrlimit(resource.RLIMIT_NPROC)[0],
    "memory": resource.getrlimit(resource.RLIMIT_DATA)[0],
    "numbers": [int(name) for name in os.listdir("/proc") if name.isdigit()],
}))
"""
SHARED = """
from multiprocessing.shared_memory import SharedMemory
SharedMemory(create=True, size=1).unlink()
"""
HOSTILE = "import os; open('{out}', 'w').write(repr(dict(os.environ)))\n"


@pytest.fixture
def places(tmp_path):
    """A folder that the sandbox may write, with a home, and a secret beside it."""
    folder = tmp_path / "inside"
    (folder / "home").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("x")
    return folder, secret


def test_command_in_the_sandbox_sees_nothing_of_the_host(places, monkeypatch):
    """Neither a server of this host, nor a file beside, nor a variable, nor another process is there."""
    monkeypatch.setenv("TOKEN_OF_MINE", "secret")
    folder, secret = places
    box = Sandbox(writable=(folder,), readable=(Path(sys.base_prefix),))
    box.prepare()
    python = os.path.realpath(sys.executable)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [python, "-I", "-c", LOOK, str(server.getsockname()[1]), str(secret)]
        finished = Runner().run(box.words(command, folder=folder), env=no_variables(), keep_output=True)
    seen = json.loads(finished.output)
    assert (seen["network"], seen["secret"]) == (False, False)
    assert "TOKEN_OF_MINE" not in seen["variables"]
    assert "TOKEN_OF_MINE" not in seen["first"]
    assert (seen["processes"], seen["memory"]) == (limits.SANDBOX_PROCESSES, limits.SANDBOX_MEMORY_BYTES)
    assert max(seen["numbers"]) < 10
    assert os.getuid() != 0 or seen["user"] == NOBODY


def test_processes_in_the_sandbox_share_memory(places):
    """Processes of vLLM hand each other tensors in there, as anywhere."""
    folder, _ = places
    box = Sandbox(writable=(folder,), readable=(Path(sys.base_prefix),))
    box.prepare()
    command = [os.path.realpath(sys.executable), "-I", "-c", SHARED]
    assert Runner().run(box.words(command, folder=folder), env=no_variables()).status == 0


def test_machine_without_bubblewrap_runs_no_foreign_code(places, monkeypatch):
    """There is no quiet way around: who wants none says --unguarded."""
    monkeypatch.setattr(sandbox, "TOOLS", {"no-such-program": "bubblewrap"})
    sandbox._obstacle.cache_clear()  # noqa: SLF001 - it asks once
    with pytest.raises(MachineError, match="in a sandbox only") as caught:
        Sandbox(writable=places).words(["true"], folder=places[0])
    sandbox._obstacle.cache_clear()  # noqa: SLF001 - it asks once
    assert caught.value.why == "no-such-program is not installed (package bubblewrap)"
    assert "--unguarded" in caught.value.remedy


@pytest.mark.parametrize("guarded", [True, False])
def test_path_file_of_a_foreign_wheel_does_not_reach_this_host(
    tmp_path, empty_index, torch_folder, monkeypatch, guarded
):
    """A ``.pth`` that writes into my home writes nothing there, unless I ask for it unguarded."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "owned"
    recipe = Recipe(files={"a.pth": HOSTILE.format(out=out)}, headers={"Requires-Dist": ["torch==2.13.0"]})
    settings = Settings(
        state_folder=tmp_path / "state",
        index={"url": empty_index.url, "find_links": [str(torch_folder)]},
        torch={"backend": "none"},
        smoke={"generate": False},
    )
    path = recipe.write(tmp_path)
    monkeypatch.setattr("vllm_wheels.core.verify.static_checks.STATIC", ())
    verify([str(path)], settings=settings, runner=Runner(), guarded=guarded, say=lambda _: None)
    assert out.exists() is not guarded
