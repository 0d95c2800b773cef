"""A token where a careless user, or this program, might hold it, and the look of hostile code for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.host.secrets import sealed

TOKEN = "pypi-canary-in-a-mine"  # noqa: S105 - nobody's
LOOK = Path(__file__).parent / "look.py"
SLEEPER = "import os, sys; print('ready', flush=True); sys.stdin.read()"


@dataclass(frozen=True)
class Canary:
    """What is held where; ``arguments`` tell the look."""

    file: Path
    port: int

    @property
    def arguments(self) -> list[str]:
        """Of the look: the canary in two parts, or its own command line would be a finding."""
        return [f"{TOKEN[:6]} {TOKEN[6:]}", str(self.file), str(self.port)]


@contextmanager
def canary(folder: Path, python: str) -> Iterator[Canary]:
    """Holds it in a file in memory, in a token file, in the environment of another process, and serves on loopback."""
    file = folder / "tokens"
    file.touch(0o600)
    file.write_text(f"PUBLISH_TOKEN_VLLM_CPU={TOKEN}\n")
    with ExitStack() as stack:
        stack.callback(sealed({"PUBLISH_TOKEN_VLLM_CPU": TOKEN}).forget)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sleeper = subprocess.Popen(
            [python, "-I", "-c", SLEEPER],
            env={**os.environ, "PUBLISH_TOKEN_VLLM_CPU": TOKEN},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.enter_context(sleeper)
        assert sleeper.stdout.readline() == b"ready\n"
        yield Canary(file=file, port=server.getsockname()[1])


def seen(lines: Sequence[str] | Finished) -> dict[str, Any]:
    """What the look printed."""
    tail = lines.tail if isinstance(lines, Finished) else lines
    (line,) = [each for each in tail if each.startswith("found: ")]
    return json.loads(line.removeprefix("found: "))
