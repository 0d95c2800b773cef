"""A plan is data: the steps that make one artifact, shown by a dry run and walked by a real run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.host.commands import STAGE, Download, Invocation

if TYPE_CHECKING:
    from vllm_wheels.core.builders import Builder
    from vllm_wheels.core.host.processes import Runner
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to do.

    Attributes:
        title: what it does, in the imperative.
        action: key into the table of actions; see ``builds.ACTIONS``.
        arguments: what the action is called with; plain JSON. Paths may begin with ``{stage}``.
        reads: files and folders it needs.
        writes: files and folders that exist afterwards, and are checked to.
        downloads: files it fetches.
        seconds: estimate; None where nobody knows.
        gigabytes: memory needed at the same time; None where it does not matter.
        disk_gigabytes: disk needed at the same time; None where it does not matter.
        invocations: every command that it starts, in order; its action is given them and starts no other.
    """

    title: str
    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    seconds: float | None = None
    gigabytes: float | None = None
    disk_gigabytes: float | None = None
    invocations: tuple[Invocation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one artifact is made.

    Attributes:
        artifact: kind of the artifact in the store, such as ``source`` or ``wheel``.
        target: what it is made for.
        inputs: everything that determines the result, by name; plain JSON.
        steps: in order.
        notices: what the user must be told, such as a deviation from upstream's pin.
        unknown: inputs that only an earlier artifact can tell; while there are any, there is no key.
    """

    artifact: str
    target: Target
    inputs: Mapping[str, Any]
    steps: tuple[Step, ...]
    notices: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def key(self) -> str | None:
        """Hash of the inputs, under which the store keeps the result; None while an input is unknown."""
        return None if self.unknown else digest({"artifact": self.artifact, **self.inputs})

    def as_json(self) -> dict[str, Any]:
        """The plan as plain JSON, with its key."""
        return {"key": self.key, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ActionContext:
    """Where a plan is carried out.

    Attributes:
        stage: folder in which the artifact is being made; the store takes it whole or not at all.
        settings: the user's configuration.
        runner: starts processes.
        find_builder: gives the builder; called only by steps that need one, since its image may have to be made.
        say: tells the user one line.
    """

    stage: Path
    settings: Settings
    runner: Runner
    find_builder: Callable[[], Builder]
    say: Callable[[str], None]

    @property
    def builder(self) -> Builder:
        """Where compilers and the wheel's tools run."""
        return self.find_builder()

    def staged(self, invocations: Sequence[Invocation]) -> tuple[Invocation, ...]:
        """Commands of a plan with the real folder in place of ``{stage}``."""
        return tuple(each.filled({STAGE: str(self.stage)}) for each in invocations)

    def path(self, text: str) -> Path:
        """The real path of one written in a plan."""
        return Path(text.replace(STAGE, str(self.stage), 1))


Action = Callable[..., Mapping[str, Any] | None]
"""Carries out a step: called with the context and the step's arguments; what it returns is recorded with the artifact."""


def digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of the inputs in canonical JSON (sorted keys, no white space)."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
