"""Dagster's servers on this machine: code location, web server and daemon, each started again when it dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from vllm_wheels.core.errors import MachineError
from vllm_wheels.core.host.ownership import end_orphans
from vllm_wheels.core.host.processes import Runner, end_group
from vllm_wheels.core.host.secrets import PRIVATE
from vllm_wheels.core.host.slots import holder, noted
from vllm_wheels.defs.home import MODULE

LOOPBACK = "127.0.0.1"
LOCATION = "vllm_wheels"
WEB = "vllm_wheels.defs.web"
POLL_SECONDS = 1.0
LOOK_SECONDS = 0.2
PAUSE_SECONDS = 2.0
MOST_RESTARTS = 5
WITHIN_SECONDS = 120.0
GRACE_SECONDS = 5.0
"""A run that is being ended has to stop its compiler, or its container, first; whoever typed Ctrl-C waits for it."""

LOADING_SECONDS = 300.0
"""Within which the code server has to load the definitions, on however busy a machine."""

PATIENCE = {
    "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
    "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "600",
    "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS": "600",
}
"""A look at the inputs outside asks servers, and a busy machine answers late; Dagster's own limit is a minute."""


@dataclass(kw_only=True)
class Service:
    """A server.

    Attributes:
        publishes: it is told where to publish to.
        ready: whether it answers; those after it in the table are started then, for they complain of what is missing.
        deaths: times of the monotonic clock.
    """

    name: str
    argv: tuple[str, ...]
    publishes: bool = False
    ready: Callable[[], bool] = lambda: True
    process: subprocess.Popen[str] | None = None
    deaths: list[float] = field(default_factory=list)


def listening(port: int) -> str:
    """Where the web UI listens."""
    return f"http://{LOOPBACK}:{port}"


@contextmanager
def only_one(home: Path, port: int) -> Iterator[None]:
    """Lets one web UI work with a database, on a port that is free.

    Raises:
        MachineError: another one does, or somebody else listens there.
    """
    lock = home / "ui.lock"
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        what = "the web UI runs already"
        why = f"{holder(lock) or 'another process'} works with {home}"
        raise MachineError(what, why=why, remedy="use that one, or end it first") from None
    try:
        _require_free(port)
        with noted(lock, f"the web UI on {listening(port)}"):
            yield
    finally:
        held.release()


def _require_free(port: int) -> None:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        what = f"the web UI cannot listen on {LOOPBACK}:{port}"
        raise MachineError(what, why=str(error.strerror), remedy="give another --port") from None


@contextmanager
def services(
    *, port: int, environment: Mapping[str, str], session: Path, say: Callable[[str], None]
) -> Iterator[Services]:
    """Dagster's three servers, reachable from this machine only; ended with the context.

    The web server asks for the secret in the file ``session``. Runs are children of the code server, so that neither a
    dead web server nor a dead daemon takes one along.
    """
    with TemporaryDirectory(prefix="vllm-wheels-") as folder:
        code, workspace = Path(folder, "code"), Path(folder, "workspace.yaml")
        # JSON is YAML.
        server = {"socket": str(code), "location_name": LOCATION}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}), "utf-8")
        table = _services(code, workspace, session, port)
        # The workspace says what to load; a module named besides it is refused.
        running = Services(table, {**PATIENCE, **environment, "DAGSTER_MODULE_NAME": None}, say)
        try:
            running.start()
            yield running
        finally:
            running.end()


def _services(code_socket: Path, workspace: Path, session: Path, port: int) -> list[Service]:
    code = ("-m", "dagster", "code-server", "start", "--socket", str(code_socket), "--module-name", MODULE)
    web = ("-m", WEB, "--host", LOOPBACK, "--port", str(port), "--workspace", str(workspace), "--session", str(session))
    daemon = ("-m", "dagster._daemon", "run", "--workspace", str(workspace))
    return [
        Service(
            name="code server",
            argv=(sys.executable, *code, "--location-name", LOCATION),
            publishes=True,
            ready=code_socket.exists,
        ),
        Service(name="web server", argv=(sys.executable, *web)),
        Service(name="daemon", argv=(sys.executable, *daemon)),
    ]


class Services:
    """The servers while they run."""

    def __init__(self, table: list[Service], environment: Mapping[str, str | None], say: Callable[[str], None]) -> None:
        self.table = table
        self._environment = environment
        self._say = say

    def start(self) -> None:
        """Starts all of them, each once those before it answer; MachineError where one does not."""
        for service in self.table:
            self._start(service)
            self._wait_for(service)

    def _wait_for(self, service: Service) -> None:
        deadline = time.monotonic() + LOADING_SECONDS
        while not service.ready():
            status = service.process.poll() if service.process else None
            if status is not None or time.monotonic() > deadline:
                what = f"the {service.name} does not start"
                why = (
                    f"it ended with status {status}" if status is not None else f"no answer in {LOADING_SECONDS:.0f} s"
                )
                raise MachineError(what, why=why, remedy="see its lines above")
            time.sleep(LOOK_SECONDS)

    def watch(self) -> None:
        """Starts again what died, until interrupted; MachineError where one of them dies again and again."""
        while True:
            time.sleep(POLL_SECONDS)
            for service in self.table:
                self._revive(service)

    def end(self) -> None:
        """Ends all of them, and whatever a run could not end in time."""
        end_group(*(service.process for service in self.table if service.process), grace_seconds=GRACE_SECONDS)
        end_orphans()

    def _start(self, service: Service) -> None:
        # Runs are its children, and may publish; tokens are found by the uploading process, in a file or a keyring.
        told = {name: value for name, value in os.environ.items() if service.publishes and PRIVATE.fullmatch(name)}
        service.process = Runner().start(service.argv, env={**told, **self._environment})
        self._say(f"{service.name} started (process {service.process.pid})")

    def _revive(self, service: Service) -> None:
        status = service.process.poll() if service.process else None
        if status is None:
            return
        now = time.monotonic()
        service.deaths = [died for died in service.deaths if now - died < WITHIN_SECONDS] + [now]
        if len(service.deaths) > MOST_RESTARTS:
            what = f"the {service.name} dies again and again"
            why = f"it ended with status {status}, {MOST_RESTARTS} times within {WITHIN_SECONDS:.0f} s"
            raise MachineError(what, why=why, remedy="see its lines above")
        self._say(f"the {service.name} died with status {status}; starting it again, runs go on")
        time.sleep(PAUSE_SECONDS)
        self._start(service)
