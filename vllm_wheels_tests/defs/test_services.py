"""The servers of `vllm-wheels ui`: runs can be ended cleanly, and outlive a dead web server or daemon."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from docker.models.containers import Container

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.builders.docker_engine import OWNER, engine
from vllm_wheels.core.errors import MachineError
from vllm_wheels.core.host.slots import slot
from vllm_wheels.defs import services as module
from vllm_wheels.defs.services import Service, Services, only_one
from vllm_wheels_tests.defs.running_ui import RunningUi, running_ui, until

PARTITION = "3.11|0.32.0"
COMPILERS = ("cc1plus", "ninja", "cmake")
SECONDS = 240


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


def test_taken_port_is_told_before_anything_starts(tmp_path):
    """Where somebody listens on the port already, I am told so at once, and which option to give."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(MachineError, match=f"cannot listen on 127.0.0.1:{port}") as caught,
            only_one(tmp_path, port),
        ):
            pass
    assert "--port" in caught.value.remedy


def test_second_web_ui_names_the_first(tmp_path):
    """Two daemons on one database would do everything twice; the second one says where the first is."""
    with only_one(tmp_path, free_port()):
        first = rf"the web UI on http://127\.0\.0\.1:\d+ \(process {os.getpid()} "
        with pytest.raises(MachineError, match="runs already") as caught, only_one(tmp_path, free_port()):
            pass
    assert re.match(first, caught.value.why)
    with only_one(tmp_path, free_port()):
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_servers_that_need_another_start_once_it_answers(tmp_path):
    """Web server and daemon do not complain of a code server that is only being started."""
    order, answering = tmp_path / "order", tmp_path / "answering"
    slow = Service(
        name="slow",
        argv=("sh", "-c", f"sleep 1; echo slow >> {order}; touch {answering}; exec sleep 60"),
        ready=answering.exists,
    )
    later = Service(name="later", argv=("sh", "-c", f"echo later >> {order}; exec sleep 60"))
    services = Services([slow, later], {}, lambda _: None)
    services.start()
    until(lambda: order.read_text() == "slow\nlater\n", 20, "both to have started")
    services.end()


def test_server_that_never_answers_is_told(tmp_path):
    """A code server that cannot load the definitions ends the command, with its status."""
    broken = Service(name="code server", argv=("sh", "-c", "exit 3"), ready=lambda: False)
    services = Services([broken], {}, lambda _: None)
    with pytest.raises(MachineError, match="the code server does not start") as caught:
        services.start()
    assert caught.value.why == "it ended with status 3"


def test_servers_end_together_however_deaf_they_are(monkeypatch, tmp_path):
    """Ctrl-C gives the prompt back within ten seconds: one grace for all, not one for each."""
    monkeypatch.setattr(module, "GRACE_SECONDS", 1.0)
    deaf = "trap '' TERM; touch {}; while :; do sleep 1; done"
    marks = [tmp_path / name for name in ("one", "two", "three")]
    table = [Service(name=mark.name, argv=("sh", "-c", deaf.format(mark)), ready=mark.exists) for mark in marks]
    services = Services(table, {}, lambda _: None)
    services.start()
    began = time.monotonic()
    services.end()
    assert time.monotonic() - began < 3.0
    assert {service.process.poll() for service in services.table} == {-signal.SIGKILL}


@pytest.mark.servers
def test_web_ui_starts_and_stops_without_a_stack_trace(settings_environment, tmp_path):
    """What a person reads between start and Ctrl-C has no traceback, and the prompt is back within ten seconds."""
    with running_ui(tmp_path) as ui:
        pass
    assert ui.stopped_within < 10.0
    assert "Traceback" not in ui.log.read_text()


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
    assert free()


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


def free() -> bool:
    """Whether the next compile would not have to wait."""
    with slot("compile", "a test", configuration.load(), pytest.fail):
        return True


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
    assert free()


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
