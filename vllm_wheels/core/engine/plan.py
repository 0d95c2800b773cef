"""A plan is data: the steps that make one artifact, shown by a dry run and walked by a real run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vllm_wheels.core.errors import BuildError
from vllm_wheels.core.host.commands import STAGE, Download, Invocation

if TYPE_CHECKING:
    from vllm_wheels.core.engine.builder import Builder
    from vllm_wheels.core.host.processes import Runner
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

Arguments = TypeVar("Arguments")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What an action found out, as plain JSON.

    Attributes:
        facts: what later artifacts depend on; they are the artifact's version.
        details: what is only recorded, such as seconds and sizes.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, other: Made) -> Made:
        return Made(facts={**self.facts, **other.facts}, details={**self.details, **other.details})


@dataclass(frozen=True, kw_only=True)
class Step(Generic[Arguments]):
    """One thing to do.

    Attributes:
        action: carries it out; finds the step's commands in its context.
        arguments: what the action is called with, a dataclass. Paths may begin with ``{stage}``.
        writes: files and folders that exist afterwards, and are checked to.
        invocations: every command that it starts, in order; its action starts no other.
    """

    title: str
    action: Callable[[ActionContext, Arguments], Made | None]
    arguments: Arguments
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    seconds: float | None = None
    gigabytes: float | None = None
    disk_gigabytes: float | None = None
    invocations: tuple[Invocation, ...] = ()

    def carry_out(self, context: ActionContext) -> Made:
        """Calls the action; BuildError where it did not write what the step says it writes."""
        made = self.action(replace(context, invocations=self.invocations), self.arguments) or Made()
        for name in self.writes:
            if not context.path(name).exists():
                what = f"the step {self.title!r} left no {name}"
                raise BuildError(what, why="its plan says that it writes it", remedy="report this as a defect")
        return made


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one artifact is made.

    Attributes:
        inputs: what determines the result beside other artifacts and our own code, by name; plain JSON.
        notices: what the user must be told, such as a deviation from upstream's pin.
        unknown: inputs that only an earlier artifact can tell; while there are any, there is no key.
        needs: version of each needed artifact, by kind.
        code: hash of our own code and data that make or judge it.
    """

    artifact: str
    target: Target
    inputs: Mapping[str, Any]
    steps: tuple[Step[Any], ...]
    notices: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    code: str = ""

    @property
    def name(self) -> str:
        """What it makes, for people."""
        target = self.target
        return " ".join(part for part in (self.artifact, target.variant, target.release, f"on {target.python}") if part)

    @property
    def outside(self) -> str:
        """Hash of what determines the result and neither another artifact nor our own code decides.

        Commands count where they run in the builder, for they make what comes out. Other commands only bring what the
        inputs name by hash.
        """
        commands = [each.essence() for step in self.steps for each in step.invocations if each.place == "builder"]
        return digest({"inputs": self.inputs, "commands": commands})

    @property
    def key(self) -> str | None:
        """Hash of all that determines the result, under which the store keeps it; None while an input is unknown."""
        if self.unknown:
            return None
        parts = {"needs": self.needs, "outside": self.outside, "code": self.code}
        return digest({"artifact": self.artifact, **parts})


@dataclass(frozen=True, kw_only=True)
class ActionContext:
    """What an action works with.

    Attributes:
        stage: folder in which the artifact is being made; the store takes it whole or not at all.
        find_builder: gives the builder; called only by steps that need one, since its image may have to be made.
        invocations: commands of the step that is being carried out.
    """

    stage: Path
    settings: Settings
    runner: Runner
    find_builder: Callable[[], Builder]
    say: Callable[[str], None]
    invocations: tuple[Invocation, ...] = ()

    @property
    def builder(self) -> Builder:
        """Where compilers and the wheel's tools run."""
        return self.find_builder()

    def staged(self) -> tuple[Invocation, ...]:
        """The step's commands with the real folder in place of ``{stage}``."""
        return tuple(each.filled({STAGE: str(self.stage)}) for each in self.invocations)

    def path(self, text: str) -> Path:
        """The real path of one written in a plan."""
        return Path(text.replace(STAGE, str(self.stage), 1))


def carry_out(steps: Sequence[Step[Any]], context: ActionContext) -> Made:
    """Walks steps and returns what they found out; the first step that fails ends it with its error."""
    made = Made()
    for step in steps:
        context.say(step.title)
        made |= step.carry_out(context)
    return made


def digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of the inputs in canonical JSON (sorted keys, no white space)."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
