"""A rule says how one kind of artifact is made; every table of the pipeline is derived from the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vllm_wheels.core.engine.code import installed
from vllm_wheels.core.engine.plan import Plan, digest
from vllm_wheels.core.errors import ImageError
from vllm_wheels.core.host.limits import (
    BUILD_FOLDER_GIGABYTES,
    BUILD_MEMORY_GIGABYTES,
    TRIAL_DISK_GIGABYTES,
    TRIAL_MEMORY_GIGABYTES,
)
from vllm_wheels.core.variants import Variant, variant

if TYPE_CHECKING:
    from vllm_wheels.core.engine.builder import Builder
    from vllm_wheels.core.engine.store import Artifact, Store
    from vllm_wheels.core.host.slots import Work
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target


class Scope(Flag):
    """The parts of a target that a plan depends on."""

    RELEASE = auto()
    PYTHON = auto()
    VARIANT = auto()


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a machine must have for a step.

    Attributes:
        gigabytes: of free memory; 0 where every machine has enough.
        disk_gigabytes: of free disk, likewise.
        processor: whether its processor must reach the floor of the artifact's variant.
    """

    gigabytes: float = 0.0
    disk_gigabytes: float = 0.0
    cores: int = 1
    processor: bool = False


COMPILING = Hardware(gigabytes=BUILD_MEMORY_GIGABYTES, disk_gigabytes=BUILD_FOLDER_GIGABYTES)
TRYING = Hardware(gigabytes=TRIAL_MEMORY_GIGABYTES, disk_gigabytes=TRIAL_DISK_GIGABYTES, processor=True)

Stage = Literal["prepare", "compile", "wheel", "verify"]
"""What a person follows while a wheel is made."""


def nothing(_: str | None) -> Mapping[str, Any]:
    """No data of ours decides."""
    return {}


class Planning(Protocol):
    """A module that draws up plans."""

    def plan(self, context: PlanContext) -> Plan:
        """The plan of one artifact; artifacts that are not made yet are missing in its context."""


def as_it_is(_: Plan) -> Plan | None:
    """Nothing better than the plan itself."""
    return None


def planned_by(package: str) -> Callable[[PlanContext], Plan]:
    """Draws up plans by a package's module ``planning``, which whoever only looks at the rules does not wait for."""

    def plan(context: PlanContext) -> Plan:
        planning: Planning = import_module(f"{package}.planning")
        return planning.plan(context)

    return plan


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a kind of artifact is made.

    Attributes:
        plan: draws up the plan; artifacts that are not made yet are missing in its context.
        needs: kinds of artifacts that it is made from.
        code: modules whose code makes or judges it, with all that they import; none where code decides only through
            the commands that it writes.
        constants: data of ours that decides, by variant: an entry of a table whose other entries do not matter.
        observed: name and description of the inputs from outside, where there are any.
        observed_by_variant: whether these differ from variant to variant.
        sidecars: its files that stand beside a delivered wheel.
        hardware: what a machine must have to make it.
        better: the plan as another machine draws it up whose result is worth more, where there is one.
        slot: what it takes a place for while it is made, where only so many are made at the same time on a machine.
        phrases: what a changed input means to a person, by its name; ``{rest}`` is the part of the name below the entry
            and ``{values}`` what it was and is, where that is short enough to read.
    """

    kind: str
    title: str
    scope: Scope
    plan: Callable[[PlanContext], Plan]
    needs: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    constants: Callable[[str | None], Mapping[str, Any]] = nothing
    observed: tuple[str, str] | None = None
    observed_by_variant: bool = False
    stage: Stage = "prepare"
    hardware: Hardware = Hardware()
    better: Callable[[Plan], Plan | None] = as_it_is
    sidecars: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    slot: Work | None = None
    phrases: Mapping[str, str] = field(default_factory=dict)

    @property
    def per_variant(self) -> bool:
        """Whether each variant has an artifact of its own."""
        return Scope.VARIANT in self.scope

    def target(self, target: Target) -> Target:
        """What of a target the artifact belongs to."""
        return target if self.per_variant else target.shared()

    def name(self, target: Target) -> tuple[str, ...]:
        """The artifact's name among all of a run: the kind, and the parts of the target that it depends on."""
        parts = {Scope.RELEASE: target.release, Scope.PYTHON: target.python, Scope.VARIANT: str(target.variant)}
        return (self.kind, *(text for part, text in parts.items() if part in self.scope))

    def drawn_up(self, context: PlanContext) -> Plan:
        """The plan, with what its key covers of every plan: needed artifacts, and our own code."""
        drawn = self.plan(context)
        missing = (need for need in self.needs if need not in context.known)
        return replace(
            drawn,
            unknown=tuple(dict.fromkeys((*missing, *drawn.unknown))),
            needs={need: context.known[need].version for need in self.needs if need in context.known},
            code=self.code_version(context.target.variant),
        )

    def code_version(self, variant: str | None) -> str:
        """Hash of our own code and data that make or judge the artifact."""
        reached = installed().digest(self.code) if self.code else ""
        return digest({"code": reached, "constants": self.constants(variant if self.per_variant else None)})


@dataclass(frozen=True, kw_only=True)
class PlanContext:
    """What a plan is drawn up from.

    Attributes:
        known: the artifacts that are made, by kind, of all that lead to this one.
        find_builder: gives the builder if it is ready to work; None where its image has yet to be made.
    """

    settings: Settings
    store: Store
    target: Target
    known: Mapping[str, Artifact]
    find_builder: Callable[[], Builder | None]

    @property
    def variant(self) -> Variant:
        """The target's variant; UnknownVariantError where there is no such variant."""
        return variant(self.target.variant or "")

    def builder(self) -> Builder:
        """The builder, for a plan that needs one; ImageNotMadeError while its image has yet to be made."""
        found = self.find_builder()
        if found is None:
            what = "the wheel must be tried in the builder's image"
            raise ImageNotMadeError(what, why="the image is not made yet", remedy="vllm-wheels build makes it")
        return found


class ImageNotMadeError(ImageError):
    """A plan depends on what is in an image that has yet to be made."""
