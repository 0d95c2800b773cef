"""Makes pieces: plans one from the pieces it needs, takes it from the store or carries the plan out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm_wheels.core import compile as compiling
from vllm_wheels.core import environment, metadata, source, thirdparty, wheel
from vllm_wheels.core.builders.choose import choose
from vllm_wheels.core.builders.choose import kind as builder_kind
from vllm_wheels.core.builders.image import planned_image
from vllm_wheels.core.delivery import deliver
from vllm_wheels.core.errors import BuildError, ImageError
from vllm_wheels.core.machine import jobs
from vllm_wheels.core.memory import Memory, current
from vllm_wheels.core.plan import Bench, Plan, Step, Verb
from vllm_wheels.core.runner import Runner
from vllm_wheels.core.store import Store
from vllm_wheels.core.variants import variant
from vllm_wheels.core.verify import smoke

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_wheels.core.builders import Builder
    from vllm_wheels.core.progress import Watcher
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.store import Piece
    from vllm_wheels.core.target import Target
    from vllm_wheels.core.upstream import Upstream
    from vllm_wheels.core.variants import Variant

NEEDS: Mapping[str, tuple[str, ...]] = {
    "source": (),
    "onednn": ("source",),
    "torch_env": ("source",),
    "tools": (),
    "metadata": ("source",),
    "compiled": ("source", "onednn", "torch_env", "metadata"),
    "wheel": ("compiled", "metadata", "tools"),
    "verification": ("torch_env", "wheel"),
}
"""Which pieces a piece is made from; the order is one in which they can be made."""

PER_VARIANT = frozenset({"metadata", "compiled", "wheel", "verification"})

VERBS: Mapping[str, Verb] = {
    **source.VERBS,
    **thirdparty.VERBS,
    **environment.VERBS,
    **metadata.VERBS,
    **compiling.VERBS,
    **wheel.VERBS,
    **smoke.VERBS,
}


@dataclass(kw_only=True)
class Workshop:
    """Makes pieces from settings; a plain script can use it without Dagster.

    Attributes:
        settings: the user's.
        say: tells the user one line.
        echo: given each line that a process prints; None keeps quiet.
        on_piece: told of every piece that is ready, with its target and whether it was made just now.
        watcher: follows what is made, to show it to the user; None where nobody looks.
        memory: what it shares with other workshops of the same run.
    """

    settings: Settings
    say: Callable[[str], None]
    echo: Callable[[str], None] | None = None
    on_piece: Callable[[Target, Piece, bool], None] | None = None
    watcher: Watcher | None = None
    memory: Memory = field(default_factory=current)
    _ready: dict[tuple[str, Target], Piece] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """Where finished pieces are kept."""
        return Store(self.settings.state_folder / "store")

    @property
    def runner(self) -> Runner:
        """Starts processes and echoes what they print."""
        return Runner(echo=self.echo)

    def _image_steps(self) -> tuple[Step, ...]:
        container = builder_kind(self.settings, self.runner) == "container"
        return planned_image(self.settings) if container else ()

    def _existing_builder(self) -> Builder | None:
        """The builder if it is ready to work; None where its image has yet to be made."""
        return None if self._image_steps() else self.builder

    @cached_property
    def builder(self) -> Builder:
        """Where compilers run; making its image, if that is missing, is said before it is done."""
        heard = self.echo is not None
        if heard not in self.memory.builders:
            self.memory.builders[heard] = choose(self.settings, self.runner, self.say)
        return self.memory.builders[heard]

    def ensure(self, kind: str, target: Target) -> Piece:
        """The piece, made together with whatever it needs and the store lacks.

        Args:
            kind: key of ``NEEDS``.
            target: with a variant where the piece belongs to one.

        Raises:
            VllmWheelsError: any of the tree; what was finished before stays in the store.
        """
        with self.store.in_use(wait_seconds=self.settings.builder.lock_seconds):
            for needed in (*_closure(kind), kind):
                self._ensure_one(needed, target)
        return self._ready[_key(kind, target)]

    def _ensure_one(self, kind: str, target: Target) -> None:
        key = _key(kind, target)
        if key in self._ready:
            return
        remembered = self.memory.pieces.get(key)
        piece, made = (remembered, False) if remembered else self._found_or_made(kind, target)
        self._ready[key] = self.memory.pieces[key] = piece
        if self.watcher:
            self.watcher.ready(key[1], piece, made=made)
        if self.on_piece:
            self.on_piece(key[1], piece, made)

    def _found_or_made(self, kind: str, target: Target) -> tuple[Piece, bool]:
        plan = self._plan(kind, target, self._known(target), find_builder=lambda: self.builder)
        if plan.fingerprint is None:
            what = f"{kind} of {target.partition} cannot be made yet"
            raise BuildError(what, why=f"unknown: {', '.join(plan.unknown)}", remedy="report this as a defect")
        for notice in plan.notices:
            self.say(f"NOTICE: {notice}")
        found = self.store.find(kind, plan.fingerprint)
        return found or self._make(plan, plan.fingerprint), found is None

    def plans(self, kind: str, target: Target) -> Iterator[tuple[Plan, Piece | None]]:
        """The plan of a piece and of all it needs, each with the piece where the store has it; nothing is made.

        A plan whose inputs an earlier, missing piece would tell names them in ``unknown``.
        """
        known: dict[str, Piece] = {}
        for needed in (*_closure(kind), kind):
            if needed == "compiled" and (steps := self._image_steps()):
                yield Plan(piece="image", target=target.shared(), inputs={}, steps=steps), None
            try:
                plan = self._plan(needed, target, known, find_builder=self._existing_builder)
            except _ImageNotMadeError:
                plan = Plan(piece=needed, target=target, inputs={}, steps=(), unknown=("image",))
            piece = self.store.find(needed, plan.fingerprint) if plan.fingerprint else None
            if piece:
                known[needed] = piece
            yield plan, piece

    def deliver(self, kind: str, target: Target) -> Path:
        """Puts the wheel, with its log and provenance and the piece's own files, into the output folder.

        Args:
            kind: ``wheel`` or ``verification``, made by this workshop before.
            target: with a variant.
        """
        ready, folder = self._known(target), self.settings.output_folder
        path = deliver(ready["wheel"], ready["wheel"], folder)
        if kind == "verification":
            deliver(ready["wheel"], ready[kind], folder, python=target.python)
        return path

    def _plan(
        self, kind: str, target: Target, known: Mapping[str, Piece], *, find_builder: Callable[[], Builder | None]
    ) -> Plan:
        desk = _Desk(self.settings, self.store, target, known, find_builder)
        return self.memory.plan(kind, target, lambda: PLANNERS[kind](desk))

    def _known(self, target: Target) -> dict[str, Piece]:
        return {kind: piece for kind in NEEDS if (piece := self._ready.get(_key(kind, target)))}

    def _make(self, plan: Plan, fingerprint: str) -> Piece:
        wait = self.settings.builder.lock_seconds
        if self.watcher:
            self.watcher.begun(replace(plan, target=_key(plan.piece, plan.target)[1]))
        with self.store.making(plan.piece, fingerprint, wait_seconds=wait, say=self.say) as stage:
            # Another process may have made it while this one waited for the lock.
            if found := self.store.find(plan.piece, fingerprint):
                return found
            started = time.monotonic()
            bench = Bench(
                stage=stage, settings=self.settings, runner=self.runner, find_builder=lambda: self.builder, say=self.say
            )
            facts = carry_out(plan, bench)
            seconds = time.monotonic() - started
            return self.store.keep(
                plan.piece, fingerprint, stage, inputs=plan.inputs, facts=facts, seconds=round(seconds, 1)
            )


class _ImageNotMadeError(ImageError):
    """A plan depends on what is in an image that has yet to be made."""


@dataclass(frozen=True)
class _Desk:
    """What a plan is drawn up from; a piece that is not in ``known`` has yet to be made."""

    settings: Settings
    store: Store
    target: Target
    known: Mapping[str, Piece]
    find_builder: Callable[[], Builder | None]

    def builder(self) -> Builder:
        """The builder, for a plan that cannot be drawn up without one."""
        found = self.find_builder()
        if found is None:
            what = "the wheel must be tried in the builder's image"
            raise _ImageNotMadeError(what, why="the image is not made yet", remedy="vllm-wheels build makes it")
        return found

    @property
    def variant(self) -> Variant:
        return variant(self.target.variant or "")

    @property
    def upstream(self) -> Upstream | None:
        piece = self.known.get("source")
        if piece is None:
            return None
        upstream = source.facts_of(piece)
        source.require_python(upstream, self.target)
        return upstream


def _plan_source(desk: _Desk) -> Plan:
    return source.plan(desk.target, desk.settings, desk.store)


def _plan_onednn(desk: _Desk) -> Plan:
    if desk.upstream is None:
        return Plan(piece="onednn", target=desk.target, inputs={}, steps=(), unknown=("source",))
    return thirdparty.plan(desk.target, desk.upstream, desk.settings, desk.store)


def _plan_torch_env(desk: _Desk) -> Plan:
    return environment.plan(desk.target, upstream=desk.upstream, settings=desk.settings, store=desk.store)


def _plan_tools(desk: _Desk) -> Plan:
    return environment.tools_plan(desk.target, settings=desk.settings, store=desk.store)


def _plan_metadata(desk: _Desk) -> Plan:
    return metadata.plan(desk.target, source=desk.known.get("source"), upstream=desk.upstream, settings=desk.settings)


def _plan_compiled(desk: _Desk) -> Plan:
    builder = desk.find_builder()
    ingredients = compiling.Ingredients(
        source=desk.known.get("source"),
        onednn=desk.known.get("onednn"),
        torch_env=desk.known.get("torch_env"),
        metadata=desk.known.get("metadata"),
        builder=builder.identity() if builder else None,
    )
    return compiling.plan(
        desk.target,
        variant=desk.variant,
        upstream=desk.upstream,
        ingredients=ingredients,
        settings=desk.settings,
        jobs=jobs(desk.settings),
    )


def _plan_wheel(desk: _Desk) -> Plan:
    return wheel.plan(desk.target, upstream=desk.upstream, pieces=desk.known)


def _plan_verification(desk: _Desk) -> Plan:
    torch_env = desk.known.get("torch_env")
    return smoke.plan(
        desk.target,
        wheel=desk.known.get("wheel"),
        settings=desk.settings,
        find_builder=desk.builder,
        unavailable=torch_env.facts["left_out"] if torch_env else (),
    )


PLANNERS: Mapping[str, Callable[[_Desk], Plan]] = {
    "source": _plan_source,
    "onednn": _plan_onednn,
    "torch_env": _plan_torch_env,
    "tools": _plan_tools,
    "metadata": _plan_metadata,
    "compiled": _plan_compiled,
    "wheel": _plan_wheel,
    "verification": _plan_verification,
}


def carry_out(plan: Plan, bench: Bench) -> dict[str, Any]:
    """Walks a plan's steps on a bench and returns what they found out.

    Raises:
        BuildError: a step did not write what the plan says it writes.
    """
    facts: dict[str, Any] = {}
    for step in plan.steps:
        bench.say(step.title)
        commands = {"invocations": step.invocations} if step.invocations else {}
        facts |= VERBS[step.verb](bench, **step.arguments, **commands) or {}
        for name in step.writes:
            if not bench.path(name).exists():
                what = f"the step {step.title!r} left no {name}"
                raise BuildError(what, why="its plan says that it writes it", remedy="report this as a defect")
    return facts


def _closure(kind: str) -> list[str]:
    needed = {kind}
    for candidate in reversed(tuple(NEEDS)):
        if candidate in needed:
            needed.update(NEEDS[candidate])
    return [candidate for candidate in NEEDS if candidate in needed - {kind}]


def _key(kind: str, target: Target) -> tuple[str, Target]:
    return kind, target if kind in PER_VARIANT else target.shared()
