"""A test run: a clean environment with the wheel, where commands run sandboxed or with network access."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from uv import find_uv_bin

from vllm_wheels.core.builders import network
from vllm_wheels.core.engine.builder import PLACE, Command, Mount
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.machine import GIGABYTE
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.host.sandbox import Sandbox, no_variables
from vllm_wheels.core.verify.checks import Check, RunOptions
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.pythons import host_python

if TYPE_CHECKING:
    # Imported for its type only: how the engine walks steps decides no verdict.
    from vllm_wheels.core.engine.plan import ActionContext

LOG = "smoke.log"
TEST_RUN = "test_run"
PROCESSOR, INSTALLS, TORCH_IS_CPU = "processor", "installs", "torch-is-cpu"
IMPORTS, CPU_PLATFORM = "imports", "cpu-platform"
"""Names of checks that others need."""

ANSWER = '{"probe": '
"""Beginning of the line in which a probe prints its answer."""

HERE, TEMPORARY = "{test_run}", "{temporary}"
"""Stand in a command for the test run's folder as the location sees it, and for a temporary folder."""

PROGRAMS = f"{HERE}/venv/bin"

LENT = ("home", "venv")
"""What commands may write of the test run's folder. Into the folder itself this program writes, later too: what runs
there must not be able to put a link in the way."""

FOREIGN = re.compile(
    r"VLLM_\w+|PYTHON\w+|VIRTUAL_ENV|CONDA_\w+|UV_(PYTHON|TORCH|CONSTRAINT|OVERRIDE|EXCLUDE|PROJECT)\w*"
)
"""Variables of the user that would change what uv installs; those that only name the index stay."""

CLEAN = {
    "LC_ALL": "C.UTF-8",
    "NO_COLOR": "1",
    # A container's user may have no entry in its passwd, and torch asks for a name.
    "USER": "vllm-wheels",
    "LOGNAME": "vllm-wheels",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment of a sandboxed command, besides PATH, HOME and TMPDIR."""


def sandboxed(*argv: str, **env: str) -> Invocation:
    """A command of a plan that runs sandboxed: without the user's variables, and in a container without network."""
    path = f"{PROGRAMS}:{os.defpath}"
    given = {**CLEAN, "PATH": path, "HOME": f"{HERE}/home", "TMPDIR": TEMPORARY, **env}
    # env -i and not the builder's way of setting variables: an image has variables of its own.
    words = ("env", "-i", *(f"{name}={value}" for name, value in given.items()), *argv)
    return Invocation(argv=words, folder=f"{HERE}/home", place="location")


@dataclass(frozen=True, kw_only=True)
class TestRun:
    """One wheel in a virtual environment of its own, below the context's stage.

    A command raises StepTimeoutError after ``smoke.timeout_seconds``, MachineError where no container engine answers.
    """

    context: ActionContext  # where the report is being made
    location: TestLocation
    wheel: Path
    distribution: str  # its normalised name
    version: str
    python: str  # version without the micro part
    left_out: tuple[str, ...]  # requirements that are not installed on purpose, by normalised name
    floor: tuple[str, ...]  # flags of /proc/cpuinfo without which the wheel need not load
    guarded: bool = True  # run what is installed in a sandbox: it is somebody else's
    commands: tuple[Invocation, ...] = ()  # of the check that is being carried out

    def with_commands_of(self, check: Check[TestRun]) -> TestRun:
        """The test run with the commands that a plan has for a check."""
        options = RunOptions(settings=self.context.settings, left_out=self.left_out, floor=self.floor)
        return replace(self, commands=check.planned(options))

    @property
    def folder(self) -> Path:
        """Holds the environment and whatever the probes write; removed afterwards."""
        return self.context.stage / TEST_RUN

    @property
    def in_container(self) -> bool:
        """Whether commands run in a container of the builder's image."""
        return self.location.kind == "container"

    @property
    def programs(self) -> str:
        """Folder of the environment's programs, as the location sees it."""
        return f"{self.place}/venv/bin"

    @property
    def uv(self) -> str:
        """Path of uv, as the location sees it."""
        return f"{PLACE}/uv" if self.in_container else find_uv_bin()

    @property
    def place(self) -> str:
        """The test run's folder, as the location sees it."""
        return f"{PLACE}/{TEST_RUN}" if self.in_container else str(self.folder)

    def start(self, command: Invocation) -> Finished:
        """Runs a command of ``sandboxed``, in a container without network."""
        with self._temporary() as temporary:
            words = command.filled({HERE: self.place, TEMPORARY: temporary}).argv
            if self.in_container:
                return self._in_container(words)
            return self._in_sandbox(words, Path(temporary)) if self.guarded else self._on_host(words)

    def start_without_network(self, argv: Sequence[str], *, env: Mapping[str, str]) -> Finished:
        """Runs uv over what is installed, which starts its Python: guarded as all that runs foreign code."""
        if self.in_container:
            return self._in_container(argv, env=env, mounts=(self._uv(),))
        if not self.guarded:
            return self.run_with_network(argv, env=env)
        given = {**CLEAN, "HOME": f"{self.place}/home", **env}
        words = ("/usr/bin/env", *(f"{name}={value}" for name, value in given.items()), *argv)
        with self._temporary() as temporary:
            return self._in_sandbox(words, Path(temporary), Path(self.uv))

    def _in_sandbox(self, argv: Sequence[str], temporary: Path, *readable: Path) -> Finished:
        # Not where the environment's own link leads, which what is installed may have changed.
        python = Path(host_python(self.python, self.context.runner)).resolve().parent.parent
        lent = [self.folder / name for name in LENT]
        sandbox = Sandbox(writable=(*lent, temporary), readable=(self.folder, python, *readable))
        sandbox.prepare()
        return self._on_host(sandbox.words(argv, folder=self.folder / "home"), env=no_variables())

    def run_with_network(
        self, argv: Sequence[str], *, env: Mapping[str, str], mounts: Sequence[Mount] = ()
    ) -> Finished:
        """Runs uv with network access; on the host, with the user's own configuration of the package index."""
        if self.in_container:
            return self._in_container(argv, env=env, mounts=(self._uv(), *mounts), network=True)
        foreign: dict[str, str | None] = {name: None for name in os.environ if FOREIGN.fullmatch(name)}
        # At the root, or uv would take settings from a project around the store.
        return self._on_host(argv, env={**foreign, **env}, folder=Path(self.folder.anchor))

    def _uv(self) -> Mount:
        return Mount(source=Path(find_uv_bin()).resolve(), place=self.uv)

    def environ(self) -> Mapping[str, str]:
        """Environment variables that uv finds in the location."""
        return {**os.environ, **network.shown()[0]} if self.in_container else os.environ

    @contextmanager
    def _temporary(self) -> Iterator[str]:
        if self.in_container:
            yield "/tmp"  # noqa: S108 - of a container that nobody else sees
            return
        # Not below the stage: vLLM puts sockets there, whose paths may have no more than 107 characters (unix(7)).
        with TemporaryDirectory(prefix="vw-", ignore_cleanup_errors=True) as folder:
            yield folder

    def _on_host(
        self, argv: Sequence[str], *, env: Mapping[str, str | None] | None = None, folder: Path | None = None
    ) -> Finished:
        return self.context.runner.run(
            argv,
            env=env,
            cwd=folder or self.folder / "home",
            timeout_seconds=self.context.settings.smoke.timeout_seconds,
            log=self.context.stage / LOG,
            keep_output=True,
            quiet=True,
        )

    def _in_container(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        network: bool = False,
    ) -> Finished:
        lines: list[str] = []
        own = [Mount(source=self.folder, place=self.place, writable=network, lent=True)]
        if not network:
            inside = ((self.folder / name, f"{self.place}/{name}") for name in LENT)
            own += [Mount(source=source, place=place, writable=True, lent=True) for source, place in inside]
        command = Command(
            argv=argv,
            env=env or {},
            cwd=f"{self.place}/home",
            mounts=(*own, *mounts),
            network=network,
            gigabytes=limits.SANDBOX_MEMORY_BYTES / GIGABYTE if self.guarded else None,
        )
        finished = self.context.builder.run(
            command,
            log=self.context.stage / LOG,
            timeout_seconds=self.context.settings.smoke.timeout_seconds,
            on_line=lines.append,
        )
        return replace(finished, output="".join(f"{line}\n" for line in lines))


def answer_lines(finished: Finished) -> list[str]:
    """The lines in which a probe printed its answers."""
    return [line for line in finished.output.splitlines() if line.startswith(ANSWER)]


def answer(line: str) -> Mapping[str, Any]:
    """Parses such a line."""
    # Other processes may have written on in the same line.
    seen: Mapping[str, Any] = json.JSONDecoder().raw_decode(line)[0]
    return seen


def last_lines(output: str, number: int = 25) -> str:
    """The end of an output, for a report."""
    return "\n".join(output.rstrip().splitlines()[-number:])
