"""What the engine asks of a place where compilers run; the places themselves are in ``core.builders``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished

PLACE = "/vllm-wheels"
"""Folder below which a container sees everything; fixed, so that compiler caches hit."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or file of the host that a command needs, and the place under which a container sees it.

    Attributes:
        lent: it stays the sandbox's user's afterwards: a cache of several commands, or a folder that is removed.
    """

    source: Path
    place: str
    writable: bool = False
    lent: bool = False


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command for a builder; ``argv``, ``env`` and ``cwd`` name mounted paths by their ``place``.

    Attributes:
        env: environment on top of the builder's own.
        network: may it reach the network; compile steps may not.
        gigabytes: memory above which a container is killed; None for no limit. The local builder limits each process.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    mounts: Sequence[Mount]
    network: bool = False
    gigabytes: float | None = None

    @classmethod
    def of(
        cls, invocation: Invocation, *, mounts: Sequence[Mount], network: bool = False, gigabytes: float | None = None
    ) -> Command:
        """The command of a plan, filled in, with what it may see."""
        argv, env, cwd = invocation.words, invocation.environment, str(invocation.folder)
        return cls(argv=argv, env=env, cwd=cwd, mounts=mounts, network=network, gigabytes=gigabytes)


class Builder(Protocol):
    """Runs commands with a compiler at hand."""

    @property
    def name(self) -> str:
        """What a user calls it, such as ``local``."""

    def identity(self) -> Mapping[str, Any]:
        """What of the builder determines compiled objects: compiler, C library, image; plain JSON.

        Raises:
            MachineError: the builder cannot work here; says what to install.
        """

    def python(self, version: str) -> str:
        """Path, in the builder, of a Python of that version with its headers.

        Raises:
            UnsupportedPythonError: the builder has none.
        """

    def path(self) -> str:
        """PATH of the builder's own tools; a command that sets PATH puts its folders before it."""

    def run(
        self,
        command: Command,
        *,
        log: Path | None = None,
        timeout_seconds: float | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Finished:
        """Runs a command to its end and returns what became of it; ends its whole group when interrupted."""
