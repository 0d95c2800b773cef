"""Compiles in containers: a fresh one for each command, without network unless the command asks for it."""

from __future__ import annotations

import codecs
import json
import os
import shlex
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container
from docker.types import LogConfig
from docker.types import Mount as Bind

from vllm_wheels.core.builders import network
from vllm_wheels.core.builders.docker_engine import OWNER, discard, engine, explanation, kill, sweep
from vllm_wheels.core.builders.image import Image
from vllm_wheels.core.engine.builder import Command
from vllm_wheels.core.errors import ImageError, MachineError, StepTimeoutError, UnsupportedPythonError
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.host.machine import GIGABYTE, memory_available
from vllm_wheels.core.host.ownership import NOBODY, owner
from vllm_wheels.core.host.processes import TAIL_LINES, Finished
from vllm_wheels.core.host.sandbox import lend, take_back
from vllm_wheels.core.texts import shown

PROBE_SECONDS = 120.0
STOP_SECONDS = 60
SIGNALLED = 128
"""Added to the number of the signal that ended a container's first process."""

SHARED_MEMORY = "2g"
"""Size of /dev/shm: torch and vLLM pass tensors between processes there, and an engine's default is 64 MB."""

LENT = f"{NOBODY}:{NOBODY}"
"""Whom commands run as where this process is root, which would be root of the host; what they write is lent to it."""

TEMPORARY = "rw,exec,nosuid,nodev,mode=1777"
"""Of a container's only folder that is its own: memory, and counted as such."""

MERGED = ("sh", "-c", 'exec "$@" 2>&1', "sh")
"""Puts a command's errors into its output, because an engine does not keep the order of two streams."""

PROBE = """
set -eu
echo "path $PATH"
echo "compiler $(g++ --version | head -n 1 | cut -d' ' -f2-)"
if command -v dpkg-query > /dev/null; then
    echo "packages $(dpkg-query -W -f '${Package} ${Architecture} ${Version}\\n' | sort | sha256sum | cut -d' ' -f1)"
fi
for python in "$@"; do
    [ -x "$python" ] || continue
    "$python" -I -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if os.path.isfile(header) and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("python", "%d.%d" % sys.version_info[:2], sys.executable)
'
done
"""
"""Prints what is in an image; its arguments are the interpreters' paths."""


@dataclass(frozen=True, kw_only=True)
class ContainerBuilder:
    """Runs commands in containers of one image, about which it keeps notes; None for ``echo`` keeps quiet."""

    image: Image
    notes: Path
    echo: Callable[[str], None] | None = None

    @property
    def name(self) -> str:
        """What a user calls it."""
        return f"container ({self.image.kind})"

    def identity(self) -> Mapping[str, Any]:
        """Kind of image, its compiler, and its digest or the hash of its packages' versions.

        The packages rather than the image's id: an image made anew from the same packages compiles the same.
        """
        facts = self._facts()
        content = {"digest": self.image.digest} if self.image.digest else {"packages": facts["packages"]}
        return {"kind": "container", "image": self.image.kind, "compiler": facts["compiler"], **content}

    def python(self, version: str) -> str:
        """Path in the image of a Python of that version with its headers; UnsupportedPythonError where it has none."""
        pythons: Mapping[str, str] = self._facts()["pythons"]
        if version in pythons:
            return pythons[version]
        what = f"the builder image has no Python {version}"
        why = f"{self.image.name} has {', '.join(pythons) or 'none'}"
        remedy = "choose one of those, or another image (builder.image), or builder.kind = local"
        raise UnsupportedPythonError(what, why=why, remedy=remedy)

    def path(self) -> str:
        """PATH of the image."""
        return str(self._facts()["path"])

    def run(
        self,
        command: Command,
        *,
        log: Path | None = None,
        timeout_seconds: float | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Finished:
        """Runs a command in a container that is killed and removed whatever happens to this process's Python code.

        A status of -9 means that the kernel or somebody killed the command, nearly always for lack of memory. What a
        killed process leaves behind is removed by the next call of anybody.

        Raises:
            EngineUnreachableError: the engine does not answer.
            ImageError: the image is gone.
            MachineError: the engine cannot start the command.
            StepTimeoutError: it took longer than ``timeout_seconds``.
        """
        hear = [listener for listener in (self.echo, on_line) if listener]
        with engine() as client:
            sweep(client)
            user = _user(client)
            container = self._create(client, command, user)
            if user == LENT:
                lend(mount.source for mount in command.mounts if mount.writable)
            try:
                return _watch(container, command, hear=hear, log=log, timeout_seconds=timeout_seconds)
            finally:
                discard(container)
                take_back(mount.source for mount in command.mounts if mount.writable and not mount.lent)

    def _create(self, client: DockerClient, command: Command, user: str | None) -> Container:
        reach, shown = network.shown() if command.network else ({}, ())
        binds = [
            Bind(mount.place, str(mount.source), type="bind", read_only=not mount.writable)
            for mount in (*command.mounts, *shown)
        ]
        try:
            return client.containers.create(
                self.image.id,
                list(command.argv),
                entrypoint=MERGED,
                environment={"HOME": "/tmp", "LC_ALL": "C.UTF-8", **reach, **command.env},  # noqa: S108
                working_dir=command.cwd,
                mounts=binds,
                user=user,
                cap_drop=["ALL"],
                read_only=True,
                tmpfs={"/tmp": TEMPORARY},  # noqa: S108 - the container's own
                network_mode="host" if command.network else "none",
                labels={OWNER: owner(os.getpid())},
                shm_size=SHARED_MEMORY,
                pids_limit=limits.SANDBOX_PROCESSES,
                **_limit(command.gigabytes),
                # Output is taken as it comes; the engine need not keep a second copy.
                log_config=LogConfig(type="none"),
                # Relabelling a user's folders for SELinux would outlast the container.
                security_opt=["label=disable", "no-new-privileges"],
            )
        except ImageNotFound as error:
            what = f"the builder image {self.image.name} is gone"
            remedy = "run the command again; it is made anew"
            raise ImageError(what, why=explanation(error), remedy=remedy) from error
        except APIError as error:
            raise _cannot_run(command, error) from error

    def _facts(self) -> Mapping[str, Any]:
        note = self.notes / f"{self.image.id.rpartition(':')[2]}.json"
        try:
            facts: Mapping[str, Any] = json.loads(note.read_text("utf-8"))
        except FileNotFoundError:
            facts = self._probe()
            write_atomically(note, json.dumps(facts, indent=1, sort_keys=True))
        return facts

    def _probe(self) -> Mapping[str, Any]:
        # The patterns are the image's own data, and only a shell of the image can expand them.
        script = PROBE.replace('"$@"', " ".join(self.image.pythons))
        lines: list[str] = []
        command = Command(argv=["sh", "-c", script], env={}, cwd="/", mounts=())
        finished = self.run(command, timeout_seconds=PROBE_SECONDS, on_line=lines.append)
        found = [line.split(" ", 1) for line in lines if " " in line]
        texts = dict(found)
        if finished.status != 0 or "compiler" not in texts or not (self.image.digest or "packages" in texts):
            what = f"{self.image.name} is not a builder image"
            why = f"looking into it ended with status {finished.status}: {' / '.join(finished.tail[-2:])}"
            raise ImageError(what, why=why, remedy=f"docker rmi {self.image.name}, then run the command again")
        pythons = dict(rest.split(" ", 1) for kind, rest in found if kind == "python")
        return {
            "compiler": f"g++ {texts['compiler']}",
            "packages": texts.get("packages"),
            "path": texts["path"],
            "pythons": pythons,
        }


def _watch(
    container: Container,
    command: Command,
    *,
    hear: Sequence[Callable[[str], None]],
    log: Path | None,
    timeout_seconds: float | None,
) -> Finished:
    started = time.monotonic()
    expired = threading.Event()
    # Attached before the start, so that no line is missed; what follows an engine's log loses the end now and then.
    stream = container.attach(stdout=True, stderr=True, stream=True)
    timer = _timer(container, timeout_seconds, expired)
    try:
        container.start()
        tail = _drain(lines(stream), hear=hear, log=log)
        container.wait(timeout=STOP_SECONDS)
        container.reload()
    except APIError as error:
        raise _cannot_run(command, error) from error
    finally:
        if timer:
            timer.cancel()
        # The SDK's own close() leaves the connection open, and without private help nothing else can reach it.
        stream._response.close()  # noqa: SLF001
    seconds = time.monotonic() - started
    if expired.is_set():
        what = f"{shlex.join(command.argv[:3])} did not finish"
        why = f"it ran longer than its limit of {timeout_seconds:.0f} s"
        raise StepTimeoutError(what, why=why, remedy="raise builder.timeout_seconds, or see in the log what hangs")
    return Finished(
        argv=tuple(command.argv), status=status(container.attrs["State"]), seconds=seconds, tail=tuple(tail)
    )


def _drain(output: Iterable[str], *, hear: Sequence[Callable[[str], None]], log: Path | None) -> deque[str]:
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with open(log or os.devnull, "a", encoding="utf-8") as stream:  # noqa: PTH123 - devnull is a text
        for line in output:
            clean = shown(line)
            tail.append(clean)
            stream.write(f"{clean}\n")
            stream.flush()
            for listener in hear:
                listener(line)
    return tail


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines of a stream that comes in chunks, which end anywhere, also within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from whole
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


def status(state: Mapping[str, Any]) -> int:
    """Exit status of a container as ``Finished`` has it: negative for the signal that ended it."""
    code = int(state["ExitCode"])
    if code != 0 and state.get("OOMKilled"):
        return -signal.SIGKILL
    number = code - SIGNALLED
    return -number if number in signal.valid_signals() else code


def _timer(container: Container, timeout_seconds: float | None, expired: threading.Event) -> threading.Timer | None:
    if timeout_seconds is None:
        return None

    def expire() -> None:
        expired.set()
        kill(container)

    timer = threading.Timer(timeout_seconds, expire)
    timer.daemon = True
    timer.start()
    return timer


def _limit(gigabytes: float | None) -> dict[str, int]:
    size = int((gigabytes or memory_available()) * GIGABYTE)
    # Swap would only make a compiler without memory slow.
    return {"mem_limit": size, "memswap_limit": size}


def _user(client: DockerClient) -> str | None:
    # A rootless engine makes the container's root the calling user; any other number would be somebody else.
    if any("rootless" in option for option in client.info().get("SecurityOptions") or ()):
        return None
    return LENT if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"


def _cannot_run(command: Command, error: APIError) -> MachineError:
    what = f"the container engine cannot run {command.argv[0]}"
    return MachineError(what, why=explanation(error), remedy="see why; the engine's own log tells more")
