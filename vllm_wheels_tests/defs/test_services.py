"""The servers of `vllm-wheels ui`: runs can be ended cleanly, and outlive a dead web server or daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from docker.models.containers import Container

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.builders.docker_engine import OWNER, engine
from vllm_wheels.defs import home
from vllm_wheels.defs.services import Service, Services
from vllm_wheels_tests.defs.running_ui import RunningUi, running_ui, until

PARTITION = "3.11|0.32.0"
COMPILERS = ("cc1plus", "ninja", "cmake")
SECONDS = 240
FREED_SECONDS = 150
"""The daemon frees what a run left behind a minute after its end, and looks every half minute."""


@pytest.fixture
def ui(settings_environment, tmp_path) -> Iterator[RunningUi]:
    with running_ui(tmp_path) as found:
        yield found


def compilers(folder: Path) -> list[str]:
    """Names of the programs that work in the build folders of a state folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").readlink().is_relative_to(folder / "state" / "build")
            name = (process / "comm").read_text().strip()
        except OSError:
            continue
        if inside:
            found.append(name)
    return found


@pytest.mark.parametrize("publishes", [True, False])
def test_server_whose_runs_publish_is_told_where_to_and_none_has_a_token(tmp_path, monkeypatch, publishes):
    """A run that publishes knows the indexes of whoever started the UI; no server has a token."""
    monkeypatch.setenv("PUBLISH_TOKEN_VLLM_CPU", "pypi-canary")
    monkeypatch.setenv("VLLM_WHEELS_PUBLISH__REPOSITORY", "the-index")
    seen = tmp_path / "seen"
    server = Service(name="server", argv=("sh", "-c", f"env > {seen}.part; mv {seen}.part {seen}"), publishes=publishes)
    services = Services([server], {}, lambda _: None)
    services.start()
    until(seen.is_file, 20, "the server to have started")
    services.end()
    assert "pypi-canary" not in seen.read_text()
    assert ("the-index" in seen.read_text()) == publishes


@pytest.mark.servers
def test_terminated_run_leaves_no_compiler_behind(ui, tmp_path):
    """Whoever ends a run in the UI ends its compiler with it."""
    run = ui.launch("wheel/avx512", PARTITION)
    until(lambda: set(COMPILERS) & set(compilers(tmp_path)), SECONDS, "a compiler to start")
    ui.terminate(run)
    ended = until(lambda: end_of(ui, run), SECONDS, "the run to end")
    assert ended == "CANCELED"
    # Being ended they may still be there for a moment.
    until(lambda: not compilers(tmp_path), 15, "the compilers to end")
    assert until(slots, FREED_SECONDS, "the place in the pool to be free") == (0, 1)


@pytest.mark.container
def test_terminated_run_leaves_no_container_behind(settings_environment, tmp_path, monkeypatch):
    """Whoever ends a run in the UI ends the container in which it compiles."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__KIND", "container")
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__IMAGE", "debian")
    with running_ui(tmp_path) as ui:
        run = ui.launch("wheel/avx512", PARTITION)
        (container,) = until(lambda: containers(tmp_path), SECONDS, "a container to compile")
        assert container.status == "running"
        ui.terminate(run)
        ended = until(lambda: end_of(ui, run), SECONDS, "the run to end")
    assert ended == "CANCELED"
    assert containers(tmp_path) == []


def containers(folder: Path) -> list[Container]:
    """Running containers that see the build folder of a state folder."""
    with engine() as client:
        found = client.containers.list(filters={"label": OWNER, "status": "running"}, ignore_removed=True)
    build = str(folder / "state" / "build")
    return [one for one in found if any(mount["Source"].startswith(build) for mount in one.attrs["Mounts"])]


def slots() -> tuple[int, int] | None:
    """Taken and all places of the pool of compilers; None while one is taken."""
    instance = home.instance(configuration.load())
    info = instance.event_log_storage.get_concurrency_info("compile")
    return (info.active_slot_count, info.slot_count) if info.active_slot_count == 0 else None


@pytest.mark.servers
def test_killed_web_server_and_daemon_come_back_and_the_run_goes_on(ui, tmp_path):
    """A run that compiles does not notice that web server and daemon were killed; both are there again."""
    run = ui.launch("wheel/avx512", PARTITION)
    until(lambda: compilers(tmp_path), SECONDS, "the build to start")
    killed = {name: ui.pid(name) for name in ("web server", "daemon")}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: ui.pid("web server") != killed["web server"], SECONDS, "the web server to come back")
    until(lambda: ui.pid("daemon") != killed["daemon"], SECONDS, "the daemon to come back")
    ended = until(lambda: end_of(ui, run), SECONDS, "the run to end")
    assert ended == "SUCCESS"
    assert {name for name, pid in killed.items() if ui.pid(name) == pid} == set()
    assert until(slots, FREED_SECONDS, "the place in the pool to be free") == (0, 1)


def end_of(ui: RunningUi, run: str) -> str | None:
    """How a run ended; None while it runs, or while the web server is away."""
    try:
        status = ui.status(run)
    except OSError:
        return None
    return status if status in {"CANCELED", "FAILURE", "SUCCESS"} else None


@pytest.mark.servers
def test_ui_listens_on_loopback_only(ui):
    """Nobody but this machine reaches the web UI, and the code location is reached by a socket alone."""
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{ui.pid('web server')}/net/{table}").read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            if state == "0A" and int(address.rpartition(":")[2], 16) == int(ui.url.rpartition(":")[2]):
                listening.append(address.rpartition(":")[0])
    assert listening == ["0100007F"]


def test_workspace_of_a_checkout_names_the_code_location():
    """`dagster dev` in a checkout loads what the commands load."""
    root = Path(__file__).parents[2]
    (entry,) = yaml.safe_load((root / "workspace.yaml").read_text())["load_from"]
    assert entry["python_module"]["module_name"] == "vllm_wheels.definitions"
