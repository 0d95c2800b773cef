"""Makes artifacts: plans one from the artifacts it needs, takes it from the store or carries the plan out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.artifacts import compiled as compiling
from vllm_wheels.core.artifacts import metadata, source
from vllm_wheels.core.artifacts import onednn as thirdparty
from vllm_wheels.core.artifacts.torch_env import environment
from vllm_wheels.core.artifacts.wheel import planning as wheel
from vllm_wheels.core.builders.choose import choose
from vllm_wheels.core.builders.choose import kind as builder_kind
from vllm_wheels.core.builders.image import planned_image
from vllm_wheels.core.engine.plan import Action, ActionContext, Plan, Step
from vllm_wheels.core.engine.run_cache import Memory, current
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import BuildError, ImageError
from vllm_wheels.core.host.machine import jobs
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.operations.delivery import deliver
from vllm_wheels.core.variants import variant
from vllm_wheels.core.verify import planning as smoke

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_wheels.core.builders import Builder
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.operations.progress import Watcher
    from vllm_wheels.core.patches.upstream import Upstream
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target
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
"""Which artifacts an artifact is made from; the order is one in which they can be made."""

PER_VARIANT = frozenset({"metadata", "compiled", "wheel", "verification"})

ACTIONS: Mapping[str, Action] = {
    **source.ACTIONS,
    **thirdparty.ACTIONS,
    **environment.ACTIONS,
    **metadata.ACTIONS,
    **compiling.ACTIONS,
    **wheel.ACTIONS,
    **smoke.ACTIONS,
}


@dataclass(kw_only=True)
class BuildGraph:
    """Makes artifacts from settings; a plain script can use it without Dagster.

    Attributes:
        settings: the user's.
        say: tells the user one line.
        echo: given each line that a process prints; None keeps quiet.
        on_artifact: told of every artifact that is ready, with its target and whether it was made just now.
        watcher: follows what is made, to show it to the user; None where nobody looks.
        memory: what it shares with other workshops of the same run.
    """

    settings: Settings
    say: Callable[[str], None]
    echo: Callable[[str], None] | None = None
    on_artifact: Callable[[Target, Artifact, bool], None] | None = None
    watcher: Watcher | None = None
    memory: Memory = field(default_factory=current)
    _ready: dict[tuple[str, Target], Artifact] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """Where finished artifacts are kept."""
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

    def ensure(self, kind: str, target: Target) -> Artifact:
        """The artifact, made together with whatever it needs and the store lacks.

        Args:
            kind: key of ``NEEDS``.
            target: with a variant where the artifact belongs to one.

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
        remembered = self.memory.artifacts.get(key)
        artifact, made = (remembered, False) if remembered else self._found_or_made(kind, target)
        self._ready[key] = self.memory.artifacts[key] = artifact
        if self.watcher:
            self.watcher.ready(key[1], artifact, made=made)
        if self.on_artifact:
            self.on_artifact(key[1], artifact, made)

    def _found_or_made(self, kind: str, target: Target) -> tuple[Artifact, bool]:
        plan = self._plan(kind, target, self._known(target), find_builder=lambda: self.builder)
        if plan.key is None:
            what = f"{kind} of {target.partition} cannot be made yet"
            raise BuildError(what, why=f"unknown: {', '.join(plan.unknown)}", remedy="report this as a defect")
        for notice in plan.notices:
            self.say(f"NOTICE: {notice}")
        found = self.store.find(kind, plan.key)
        return found or self._make(plan, plan.key), found is None

    def plans(self, kind: str, target: Target) -> Iterator[tuple[Plan, Artifact | None]]:
        """The plan of an artifact and of all it needs, each with the artifact where the store has it; nothing is made.

        A plan whose inputs an earlier, missing artifact would tell names them in ``unknown``.
        """
        known: dict[str, Artifact] = {}
        for needed in (*_closure(kind), kind):
            if needed == "compiled" and (steps := self._image_steps()):
                yield Plan(artifact="image", target=target.shared(), inputs={}, steps=steps), None
            try:
                plan = self._plan(needed, target, known, find_builder=self._existing_builder)
            except _ImageNotMadeError:
                plan = Plan(artifact=needed, target=target, inputs={}, steps=(), unknown=("image",))
            artifact = self.store.find(needed, plan.key) if plan.key else None
            if artifact:
                known[needed] = artifact
            yield plan, artifact

    def deliver(self, kind: str, target: Target) -> Path:
        """Puts the wheel, with its log and provenance and the artifact's own files, into the output folder.

        Args:
            kind: ``wheel`` or ``verification``, made by this builds before.
            target: with a variant.
        """
        ready, folder = self._known(target), self.settings.output_folder
        path = deliver(ready["wheel"], ready["wheel"], folder)
        if kind == "verification":
            deliver(ready["wheel"], ready[kind], folder, python=target.python)
        return path

    def _plan(
        self, kind: str, target: Target, known: Mapping[str, Artifact], *, find_builder: Callable[[], Builder | None]
    ) -> Plan:
        context = PlanContext(self.settings, self.store, target, known, find_builder)
        return self.memory.plan(kind, target, lambda: PLANNERS[kind](context))

    def _known(self, target: Target) -> dict[str, Artifact]:
        return {kind: artifact for kind in NEEDS if (artifact := self._ready.get(_key(kind, target)))}

    def _make(self, plan: Plan, key: str) -> Artifact:
        wait = self.settings.builder.lock_seconds
        if self.watcher:
            self.watcher.begun(replace(plan, target=_key(plan.artifact, plan.target)[1]))
        with self.store.making(plan.artifact, key, wait_seconds=wait, say=self.say) as stage:
            # Another process may have made it while this one waited for the lock.
            if found := self.store.find(plan.artifact, key):
                return found
            started = time.monotonic()
            context = ActionContext(
                stage=stage, settings=self.settings, runner=self.runner, find_builder=lambda: self.builder, say=self.say
            )
            facts = carry_out(plan, context)
            seconds = time.monotonic() - started
            return self.store.keep(
                plan.artifact, key, stage, inputs=plan.inputs, facts=facts, seconds=round(seconds, 1)
            )


class _ImageNotMadeError(ImageError):
    """A plan depends on what is in an image that has yet to be made."""


@dataclass(frozen=True)
class PlanContext:
    """What a plan is drawn up from; an artifact that is not in ``known`` has yet to be made."""

    settings: Settings
    store: Store
    target: Target
    known: Mapping[str, Artifact]
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
        artifact = self.known.get("source")
        if artifact is None:
            return None
        upstream = source.facts_of(artifact)
        source.require_python(upstream, self.target)
        return upstream


def _plan_source(context: PlanContext) -> Plan:
    return source.plan(context.target, context.settings, context.store)


def _plan_onednn(context: PlanContext) -> Plan:
    if context.upstream is None:
        return Plan(artifact="onednn", target=context.target, inputs={}, steps=(), unknown=("source",))
    return thirdparty.plan(context.target, context.upstream, context.settings, context.store)


def _plan_torch_env(context: PlanContext) -> Plan:
    return environment.plan(context.target, upstream=context.upstream, settings=context.settings, store=context.store)


def _plan_tools(context: PlanContext) -> Plan:
    return environment.tools_plan(context.target, settings=context.settings, store=context.store)


def _plan_metadata(context: PlanContext) -> Plan:
    return metadata.plan(
        context.target, source=context.known.get("source"), upstream=context.upstream, settings=context.settings
    )


def _plan_compiled(context: PlanContext) -> Plan:
    builder = context.find_builder()
    ingredients = compiling.Ingredients(
        source=context.known.get("source"),
        onednn=context.known.get("onednn"),
        torch_env=context.known.get("torch_env"),
        metadata=context.known.get("metadata"),
        builder=builder.identity() if builder else None,
    )
    return compiling.plan(
        context.target,
        variant=context.variant,
        upstream=context.upstream,
        ingredients=ingredients,
        settings=context.settings,
        jobs=jobs(context.settings),
    )


def _plan_wheel(context: PlanContext) -> Plan:
    return wheel.plan(context.target, upstream=context.upstream, artifacts=context.known)


def _plan_verification(context: PlanContext) -> Plan:
    torch_env = context.known.get("torch_env")
    return smoke.plan(
        context.target,
        wheel=context.known.get("wheel"),
        settings=context.settings,
        find_builder=context.builder,
        unavailable=torch_env.facts["left_out"] if torch_env else (),
    )


PLANNERS: Mapping[str, Callable[[PlanContext], Plan]] = {
    "source": _plan_source,
    "onednn": _plan_onednn,
    "torch_env": _plan_torch_env,
    "tools": _plan_tools,
    "metadata": _plan_metadata,
    "compiled": _plan_compiled,
    "wheel": _plan_wheel,
    "verification": _plan_verification,
}


def carry_out(plan: Plan, context: ActionContext) -> dict[str, Any]:
    """Walks a plan's steps on a context and returns what they found out.

    Raises:
        BuildError: a step did not write what the plan says it writes.
    """
    facts: dict[str, Any] = {}
    for step in plan.steps:
        context.say(step.title)
        commands = {"invocations": step.invocations} if step.invocations else {}
        facts |= ACTIONS[step.action](context, **step.arguments, **commands) or {}
        for name in step.writes:
            if not context.path(name).exists():
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
