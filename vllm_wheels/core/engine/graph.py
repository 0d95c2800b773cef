"""The build graph: plans an artifact from those it needs, takes it from the store or carries the plan out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from vllm_wheels.core.engine.failures import Failures
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step, carry_out
from vllm_wheels.core.engine.remotes import Remotes
from vllm_wheels.core.engine.rule import ImageNotMadeError, PlanContext, Rule
from vllm_wheels.core.engine.run_cache import RunCache, current
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import BuildError, FailedBeforeError, MachineError, StoreBusyError, VllmWheelsError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.host.slots import slot

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_wheels.core.engine.builder import Builder
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

IMAGE = "image"
"""Kind of the plan that makes a builder's image, which the store does not keep."""


SET_UP = "set-up"
"""What a plan waits for whose tools this machine has only after it is set up."""


class Watcher(Protocol):
    """Is told what a build graph does."""

    def begun(self, plan: Plan) -> None:
        """An artifact is being made."""

    def ready(self, target: Target, artifact: Artifact, *, made: bool) -> None:
        """An artifact is there: made just now, or found in the store."""

    def line(self, text: str) -> None:
        """A process printed a line."""


class Builders(Protocol):
    """Where compilers can run, by the settings."""

    @property
    def set_up(self) -> bool:
        """Whether this machine is set up before anything is made, so that plans may count on what it lacks now."""

    def steps(self, settings: Settings, runner: Runner) -> tuple[Step[Any], ...]:
        """What getting a builder ready takes; nothing where it is ready."""

    def ready(self, settings: Settings, runner: Runner, say: Callable[[str], None]) -> Builder:
        """The builder, made ready if it is not."""


@dataclass(kw_only=True)
class BuildGraph:
    """Makes artifacts from settings; a plain script can use it without Dagster.

    Attributes:
        rules: by kind, each after those that it needs.
        echo: given each line that a process prints; None keeps quiet.
        on_artifact: told once in a run of each artifact that is ready, with its target and whether it was made now.
        watcher: follows what is made, to show it to the user; None where nobody looks.
        retry: somebody asked to try again what failed with the same key.
        automatic: nobody asked: what failed is left alone, and after a fault that may pass only for a while.
        run_cache: what it shares with other build graphs of the same run.
    """

    settings: Settings
    rules: Mapping[str, Rule]
    builders: Builders
    say: Callable[[str], None]
    echo: Callable[[str], None] | None = None
    on_artifact: Callable[[Target, Artifact, bool], None] | None = None
    watcher: Watcher | None = None
    retry: bool = False
    automatic: bool = False
    run_cache: RunCache = field(default_factory=current)

    @property
    def store(self) -> Store:
        """Where finished artifacts are kept."""
        return Store(self.settings.state_folder / "store")

    @cached_property
    def remotes(self) -> Remotes:
        """Where other machines' artifacts are."""
        failed = self.run_cache.failed_remotes
        return Remotes(settings=self.settings.store, store=self.store, failed=failed, say=self.say)

    @property
    def failures(self) -> Failures:
        """What could not be made."""
        return Failures(self.settings.state_folder / "failures")

    @property
    def runner(self) -> Runner:
        """Starts processes and echoes what they print."""
        return Runner(echo=self.echo)

    @cached_property
    def builder(self) -> Builder:
        """Where compilers run; making its image, if that is missing, is said before it is done."""
        heard = self.echo is not None
        if heard not in self.run_cache.builders:
            self.run_cache.builders[heard] = self.builders.ready(self.settings, self.runner, self.say)
        return self.run_cache.builders[heard]

    def ensure(self, kind: str, target: Target) -> Artifact:
        """The artifact, made together with whatever it needs and the store lacks.

        Raises:
            VllmWheelsError: any of the tree; what was finished before stays in the store.
        """
        self.store.empty_older(self.say)
        known: dict[str, Artifact] = {}
        with self.store.in_use(wait_seconds=self.settings.builder.lock_seconds):
            for needed in (*self.closure(kind), kind):
                known[needed] = self._ensure_one(self.rules[needed], target, known)
        return known[kind]

    def plans(self, kind: str, target: Target) -> Iterator[tuple[Plan, Artifact | None]]:
        """The plan of an artifact and of all it needs, each with the artifact where a store has it; makes nothing.

        What a remote store has is taken from it, for later plans read it. A plan whose inputs an earlier, missing
        artifact would tell names them in ``unknown``.
        """
        known: dict[str, Artifact] = {}
        for needed in (*self.closure(kind), kind):
            rule = self.rules[needed]
            if rule.stage == "compile" and (steps := self._image_steps()):
                yield Plan(artifact=IMAGE, target=target.shared(), inputs={}, steps=steps), None
            try:
                plan = self._plan(rule, target, known, find_builder=self.ready_builder)
            except ImageNotMadeError:
                plan = _unknown(rule, target, IMAGE)
            except MachineError:
                if not self.builders.set_up:
                    raise
                plan = _unknown(rule, target, SET_UP)
            artifact = self._found_at_once(plan)
            if artifact:
                known[needed] = artifact
            yield plan, artifact

    def ask_at_once(self, kind: str, target: Target) -> None:
        """Draws up side by side the plans that need no more than what is known by now: each waits for other servers.

        An error is met again, and raised, where the plan is asked for.
        """
        rules = [self.rules[needed] for needed in self.closure(kind)]
        found = {rule.kind: self.run_cache.artifacts.get(rule.name(target)) for rule in rules}
        known = {name: artifact for name, artifact in found.items() if artifact}
        ready = [rule for rule in rules if rule.kind not in known and known.keys() >= {*rule.needs}]
        with ThreadPoolExecutor() as pool:
            for rule in ready:
                pool.submit(copy_context().run, self._plan, rule, target, known, find_builder=self.ready_builder)

    def closure(self, kind: str) -> list[str]:
        """Kinds that an artifact is made from, directly or not, each after those that it needs."""
        needed = {kind}
        for candidate in reversed(tuple(self.rules)):
            if candidate in needed:
                needed.update(self.rules[candidate].needs)
        return [candidate for candidate in self.rules if candidate in needed - {kind}]

    def ready_builder(self) -> Builder | None:
        """The builder if it is ready to work; None where its image has yet to be made."""
        return None if self._image_steps() else self.builder

    def _image_steps(self) -> tuple[Step[Any], ...]:
        # What once was ready stays so while the run lasts, and a registry is asked once.
        if self.run_cache.builders:
            return ()
        if self.run_cache.image_steps is None:
            self.run_cache.image_steps = self.builders.steps(self.settings, self.runner)
        return self.run_cache.image_steps

    def _ensure_one(self, rule: Rule, target: Target, known: Mapping[str, Artifact]) -> Artifact:
        name = rule.name(target)
        found = self.run_cache.artifacts.get(name)
        artifact, made = (found, False) if found else self._found_or_made(rule, target, known)
        self.run_cache.artifacts[name] = artifact
        # A graph that nobody follows, as one that only plans, tells nobody.
        if (self.watcher or self.on_artifact) and name not in self.run_cache.reported:
            self.run_cache.reported.add(name)
            if self.watcher:
                self.watcher.ready(rule.target(target), artifact, made=made)
            if self.on_artifact:
                self.on_artifact(rule.target(target), artifact, made)
        return artifact

    def _found_or_made(self, rule: Rule, target: Target, known: Mapping[str, Artifact]) -> tuple[Artifact, bool]:
        owner, key = rule.target(target), None
        try:
            plan = self._plan(rule, target, known, find_builder=lambda: self.builder)
            key = self._key(rule, plan)
            found = self._found(plan, wait_seconds=self.settings.builder.lock_seconds)
            if found is None:
                self._require_untried(rule, plan)
            artifact = found or self._make(plan, key, known)
        except FailedBeforeError:
            raise
        except VllmWheelsError as error:
            self.failures.note(rule.kind, owner, key, error)
            raise
        self.failures.forget(rule.kind, owner, key)
        return artifact, found is None

    def _require_untried(self, rule: Rule, plan: Plan) -> None:
        """Raises FailedBeforeError where the same failed before: a person's cheap attempts are never refused."""
        failure = None if self.retry else self.failures.find(rule.kind, plan.target)
        if failure is None or failure.key != plan.key:
            return
        if failure.stands(time.time()) if self.automatic else rule.slot and not failure.passing:
            raise failure.error

    def _key(self, rule: Rule, plan: Plan) -> str:
        target = plan.target
        if plan.key is None:
            what = f"{rule.kind} of {target.partition} cannot be made yet"
            raise BuildError(what, why=f"unknown: {', '.join(plan.unknown)}", remedy="report this as a defect")
        for notice in plan.notices:
            self.say(f"NOTICE: {notice}")
        return plan.key

    def _found(self, plan: Plan, *, wait_seconds: float) -> Artifact | None:
        if plan.key is None:
            return None
        if plan.key in self.run_cache.whole:
            return self.run_cache.whole[plan.key]
        found = self.store.find_whole(plan.artifact, plan.key)
        found = found or self.remotes.fetched(plan.artifact, plan.key, wait_seconds=wait_seconds)
        if found:
            self.run_cache.whole[plan.key] = found
        return found

    def _found_at_once(self, plan: Plan) -> Artifact | None:
        try:
            return self._found(plan, wait_seconds=0)
        except StoreBusyError:
            return None

    def _plan(
        self, rule: Rule, target: Target, known: Mapping[str, Artifact], *, find_builder: Callable[[], Builder | None]
    ) -> Plan:
        context = PlanContext(
            settings=self.settings, store=self.store, target=target, known=known, find_builder=find_builder
        )

        def draw_up() -> Plan:
            drawn = rule.drawn_up(context)
            better = rule.better(drawn)
            return better if better and self._found_at_once(better) else drawn

        return replace(self.run_cache.plan(rule.name(target), draw_up), target=rule.target(target))

    def _make(self, plan: Plan, key: str, known: Mapping[str, Artifact]) -> Artifact:
        if self.watcher:
            self.watcher.begun(plan)
        wait = self.settings.builder.lock_seconds
        with self.store.making(plan.artifact, key, wait_seconds=wait, purpose=plan.name, say=self.say) as stage:
            # Another process may have made it while this one waited for the lock.
            if found := self.store.find(plan.artifact, key):
                if found.is_whole:
                    return found
                self.say(f"NOTICE: {found.folder} was damaged since it was made: it is made again")
            for need in self.rules[plan.artifact].needs:
                self._mend(need, plan.target, known)
            made_from = {kind: known[kind].key for kind in self.closure(plan.artifact)}
            made, seconds = self._carried_out(plan, stage)
            artifact = self.store.keep(plan, stage, made, made_from=made_from, seconds=seconds)
        self.remotes.push(artifact)
        return artifact

    def _mend(self, kind: str, target: Target, known: Mapping[str, Artifact]) -> None:
        """Makes again, in its place, what was damaged since it was found, before something is made from it."""
        if not known[kind].is_whole:
            plan = self._plan(self.rules[kind], target, known, find_builder=lambda: self.builder)
            self._make(plan, known[kind].key, known)

    def _carried_out(self, plan: Plan, stage: Path) -> tuple[Made, float]:
        """Walks the steps of a plan, once there is a place for it; with the seconds that they took."""
        context = ActionContext(
            stage=stage, settings=self.settings, runner=self.runner, find_builder=lambda: self.builder, say=self.say
        )
        work = self.rules[plan.artifact].slot
        place = slot(work, plan.name, self.settings, self.say) if work else nullcontext()
        with place:
            started = time.monotonic()
            made = carry_out(plan.steps, context)
            return made, round(time.monotonic() - started, 1)


def _unknown(rule: Rule, target: Target, what: str) -> Plan:
    return Plan(artifact=rule.kind, target=rule.target(target), inputs={}, steps=(), unknown=(what,))
