"""A plan is data: the steps that make one piece, shown by a dry run and walked by a real run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from vllm_wheels.core.builders import Builder
    from vllm_wheels.core.runner import Runner
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

STAGE = "{stage}"
"""Stands in a plan for the folder in which the piece is made, known only once it is being made."""

PYTHON, PATH, UV, INDEX = "{python}", "{path}", "{uv}", "{index}"
"""Stand in a command for what only its place or the settings know: the Python of the target's version, its own PATH,
the uv that belongs to this program, and the arguments that name the package index, which may hold passwords."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that a step fetches.

    Attributes:
        url: where from.
        size: in bytes; None where the server has not said.
        sha256: published hash; None where nobody publishes one.
    """

    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A command that a step starts; names in braces stand for what is known only once the step is carried out.

    Attributes:
        argv: the command.
        environment: on top of what its place gives to every command.
        folder: working folder; folders of a container are below ``/vllm-wheels``.
        place: this host, the builder, the venue of a trial, or the container engine, which is asked for it by its API.
        condition: when it is started; None for always.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    place: Literal["host", "builder", "venue", "engine"] = "host"
    condition: str | None = None

    def filled(self, values: Mapping[str, str | Sequence[str]]) -> Invocation:
        """The command as it is started.

        Args:
            values: by name in braces; a word that is the name of several becomes several words.
        """
        single = {name: value for name, value in values.items() if isinstance(value, str)}

        def real(text: str) -> str:
            for name, value in single.items():
                text = text.replace(name, value)
            return text

        several = {name: value for name, value in values.items() if name not in single}
        argv = tuple(word for part in self.argv for word in several.get(part, (real(part),)))
        environment = {name: real(value) for name, value in self.environment.items()}
        folder = None if self.folder is None else real(self.folder)
        return replace(self, argv=argv, environment=environment, folder=folder)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to do.

    Attributes:
        title: what it does, in the imperative.
        verb: key into the table of verbs; see ``workshop.VERBS``.
        arguments: what the verb is called with; plain JSON. Paths may begin with ``{stage}``.
        reads: files and folders it needs.
        writes: files and folders that exist afterwards, and are checked to.
        downloads: files it fetches.
        seconds: estimate; None where nobody knows.
        gigabytes: memory needed at the same time; None where it does not matter.
        disk_gigabytes: disk needed at the same time; None where it does not matter.
        invocations: every command that it starts, in order; its verb is given them and starts no other.
    """

    title: str
    verb: str
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
    """How one piece is made.

    Attributes:
        piece: kind of the piece in the store, such as ``source`` or ``wheel``.
        target: what it is made for.
        inputs: everything that determines the result, by name; plain JSON.
        steps: in order.
        notices: what the user must be told, such as a deviation from upstream's pin.
        unknown: inputs that only an earlier piece can tell; while there are any, there is no fingerprint.
    """

    piece: str
    target: Target
    inputs: Mapping[str, Any]
    steps: tuple[Step, ...]
    notices: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str | None:
        """Hash of the inputs, under which the store keeps the result; None while an input is unknown."""
        return None if self.unknown else fingerprint({"piece": self.piece, **self.inputs})

    def as_json(self) -> dict[str, Any]:
        """The plan as plain JSON, with its fingerprint."""
        return {"fingerprint": self.fingerprint, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where a plan is carried out.

    Attributes:
        stage: folder in which the piece is being made; the store takes it whole or not at all.
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


Verb = Callable[..., Mapping[str, Any] | None]
"""Carries out a step: called with the bench and the step's arguments; what it returns is recorded with the piece."""


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of the inputs in canonical JSON (sorted keys, no white space)."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
