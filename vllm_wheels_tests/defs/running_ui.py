"""`vllm-wheels ui` as a user starts it, with what a test asks it by the same interface as the web page."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 90
STOP_SECONDS = 240
STARTED = re.compile(r"^(.+) started \(process (\d+)\)$", re.MULTILINE)
OPENED = re.compile(r"/\?session=(\S+)")

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
START_SENSOR = """
mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }"""
TERMINATE = "mutation End($ids: [String!]!) { terminateRuns(runIds: $ids) { __typename } }"


@dataclass
class RunningUi:
    """A web UI with its servers.

    Attributes:
        url: of the web UI.
        log: what the command printed.
        process: the command.
        stopped_within: seconds that it took to end.
    """

    url: str
    log: Path
    process: subprocess.Popen
    stopped_within: float = 0.0

    @property
    def secret(self) -> str:
        """Of the session, out of the address that was printed."""
        found = OPENED.search(self.log.read_text())
        return found[1] if found else ""

    def pid(self, name: str) -> int:
        """Number of the newest process of a server."""
        return [int(pid) for found, pid in STARTED.findall(self.log.read_text()) if found == name][-1]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """What the web page asks, by GraphQL."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.secret}"}
        request = urllib.request.Request(f"{self.url}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def launch(self, asset: str, partition: str, *, job: str = "__ASSET_JOB") -> str:
        """Starts a run of one asset as the page's button does; returns its number."""
        tags = {"dagster/partition": partition}
        params = {
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
            "selector": {
                "repositoryLocationName": "vllm_wheels",
                "repositoryName": "__repository__",
                "pipelineName": job,
                "assetSelection": [{"path": asset.split("/")}],
                "assetCheckSelection": [],
            },
        }
        answer = self.ask(LAUNCH, params=params)["launchRun"]
        return answer["run"]["runId"]

    def status(self, run: str) -> str:
        """Status of a run, such as SUCCESS."""
        return self.ask(STATUS, id=run)["runOrError"]["status"]

    def start_sensor(self, name: str) -> None:
        """Switches a sensor on as the page's switch does."""
        selector = {
            "repositoryLocationName": "vllm_wheels",
            "repositoryName": "__repository__",
            "sensorName": name,
        }
        answer = self.ask(START_SENSOR, selector=selector)["startSensor"]
        assert answer["__typename"] == "Sensor", answer

    def terminate(self, run: str) -> None:
        """Ends a run as the page's button does."""
        self.ask(TERMINATE, ids=[run])


@contextmanager
def running_ui(folder: Path) -> Iterator[RunningUi]:
    """Starts the command with the test's settings, and ends it with Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / "ui.log"
    program = Path(sys.executable).with_name("vllm-wheels")
    command = [str(program), "ui", "--port", str(port), "--python-version", "3.11"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    found = RunningUi(url=f"http://127.0.0.1:{port}", log=log, process=process)
    try:
        until(lambda: _loaded(found), START_SECONDS, "the UI to load the definitions")
        yield found
    finally:
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
            found.stopped_within = time.monotonic() - began
        finally:
            # One that hangs would fail whatever test comes next as well.
            process.kill()
            process.wait()


def until(done: Callable[[], Any], seconds: float, what: str) -> Any:
    """Waits until something is so, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.2)
    message = f"waited {seconds:.0f} s for {what}"
    raise AssertionError(message)


def _loaded(ui: RunningUi) -> bool:
    assert ui.process.poll() is None, ui.log.read_text()
    try:
        answer = ui.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
    except OSError:
        return False
    return bool(answer["repositoriesOrError"].get("nodes"))
