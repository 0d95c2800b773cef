"""A release that is being published while something breaks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.publish import receipt as receipts
from vllm_wheels_tests.core.publishing import Desk
from vllm_wheels_tests.fixtures.building import command
from vllm_wheels_tests.fixtures.front import Front

SECONDS = 300.0
UPLOADER = b"vllm_wheels.core.publish.uploader"


@dataclass
class World:
    """Two variants, an index, and the command with its variables.

    Attributes:
        chance: decides moments; its seed is in the name of the test's parameter, so that a failure can be repeated.
    """

    desk: Desk
    front: Front
    environment: dict[str, str]
    chance: random.Random

    def publish(self) -> str:
        """One plain run in this process; how it ended."""
        try:
            self.desk.publish()
        except VllmWheelsError as error:
            return f"{type(error).__name__}: {error.what}"
        return "published"

    def start(self, *before: str, **more: str) -> subprocess.Popen[str]:
        """The command, after words that it is to be started by, with more variables."""
        words = [*before, *command("publish", "--yes")]
        environment = {**self.environment, **more}
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(words, env=environment, stdout=nowhere, stderr=subprocess.PIPE, text=True)

    def run(self, *before: str, **more: str) -> str:
        """One run of the command; how it ended."""
        process = self.start(*before, **more)
        _, said = process.communicate(timeout=SECONDS)
        return ended(process.returncode, said)

    def killed_when(self, reached: Callable[[], object], number: int = signal.SIGKILL) -> str:
        """One run that gets a signal as soon as something is so."""
        process = self.start()
        end = time.monotonic() + SECONDS
        while process.poll() is None and not reached() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=SECONDS)
        return ended(process.returncode, said)

    def killed_at_request(self) -> str:
        """One run that is killed with -9 at a random one of its requests."""
        left = self.chance.randint(1, 20)
        asked = 0

        def count() -> None:
            nonlocal asked
            asked += 1

        self.front.watch = count
        try:
            return self.killed_when(lambda: asked >= left)
        finally:
            self.front.watch = lambda: None

    def uploader(self) -> int | None:
        """Number of the uploading process that sends a file now."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            if UPLOADER in words and os.fsencode(self.desk.state) in words:
                return int(path.parent.name)
        return None

    def assert_converged(self) -> None:
        """All files are there with the verified bytes, each was accepted once, and each variant has its receipt."""
        assert self.front.stored() == self.desk.hashes()
        assert sorted(self.front.accepted) == sorted(set(self.front.accepted))
        assert len(list(receipts.receipts(self.desk.state))) == len(self.desk.variants)


def ended(status: int, said: str) -> str:
    """How a command ended, in a line."""
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines: Sequence[str] = [line for line in said.splitlines() if line.strip()]
    error = next((line for line in lines if line.startswith("error: ")), "")
    return f"exit {status}: {error.removeprefix('error: ')}" if status else "published"
