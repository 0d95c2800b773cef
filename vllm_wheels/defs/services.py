"""Dagster's servers on this machine: code location, web server and daemon, each started again when it dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from vllm_wheels.core.errors import MachineError
from vllm_wheels.core.host.processes import Runner, end_group
from vllm_wheels.core.host.secrets import PRIVATE
from vllm_wheels.defs.home import MODULE

LOOPBACK = "127.0.0.1"
LOCATION = "vllm_wheels"
WEB = "vllm_wheels.defs.web"
POLL_SECONDS = 1.0
PAUSE_SECONDS = 2.0
MOST_RESTARTS = 5
WITHIN_SECONDS = 120.0
GRACE_SECONDS = 60.0
"""A run that is being ended has to stop its compiler, or its container, first."""

PATIENCE = {"DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "600", "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS": "600"}
"""A look at the inputs outside asks servers; Dagster's own limit is a minute."""


@dataclass(kw_only=True)
class Service:
    """A server; one that ``publishes`` is told where to, and ``deaths`` are times of the monotonic clock."""

    name: str
    argv: tuple[str, ...]
    publishes: bool = False
    process: subprocess.Popen[str] | None = None
    deaths: list[float] = field(default_factory=list)


@contextmanager
def services(
    *, port: int, environment: Mapping[str, str], session: Path, say: Callable[[str], None]
) -> Iterator[Services]:
    """Dagster's three servers, reachable from this machine only; ended with the context.

    The web server asks for the secret in the file ``session``. Runs are children of the code server, so that neither a
    dead web server nor a dead daemon takes one along.
    """
    with TemporaryDirectory(prefix="vllm-wheels-") as folder:
        socket, workspace = Path(folder, "code"), Path(folder, "workspace.yaml")
        # JSON is YAML.
        server = {"socket": str(socket), "location_name": LOCATION}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}), "utf-8")
        table = _services(socket, workspace, session, port)
        # The workspace says what to load; a module named besides it is refused.
        running = Services(table, {**PATIENCE, **environment, "DAGSTER_MODULE_NAME": None}, say)
        try:
            running.start()
            yield running
        finally:
            running.end()


def _services(socket: Path, workspace: Path, session: Path, port: int) -> list[Service]:
    code = ("-m", "dagster", "code-server", "start", "--socket", str(socket), "--module-name", MODULE)
    web = ("-m", WEB, "--host", LOOPBACK, "--port", str(port), "--workspace", str(workspace), "--session", str(session))
    daemon = ("-m", "dagster._daemon", "run", "--workspace", str(workspace))
    return [
        Service(name="code server", argv=(sys.executable, *code, "--location-name", LOCATION), publishes=True),
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
        """Starts all of them."""
        for service in self.table:
            self._start(service)

    def watch(self) -> None:
        """Starts again what died, until interrupted; MachineError where one of them dies again and again."""
        while True:
            time.sleep(POLL_SECONDS)
            for service in self.table:
                self._revive(service)

    def end(self) -> None:
        """Ends all of them, the code server and its runs last."""
        for service in reversed(self.table):
            if service.process:
                end_group(service.process, grace_seconds=GRACE_SECONDS)

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
            raise MachineError(what, why=why, remedy="see its lines above; most often its port is taken")
        self._say(f"the {service.name} died with status {status}; starting it again, runs go on")
        time.sleep(PAUSE_SECONDS)
        self._start(service)
