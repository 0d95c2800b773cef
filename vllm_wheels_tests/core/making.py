"""Draws plans up, carries them out, and keeps artifacts of any content, with no builder at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.commands import WatchedRunner, unlike

TARGET = Target(release="0.32.0", python="3.11", variant="avx512")


def no_builder() -> Builder:
    message = "no builder is needed"
    raise AssertionError(message)


def drawn_up(
    rule: Rule,
    settings: Settings,
    store: Store,
    *,
    target: Target = TARGET,
    known: Mapping[str, Artifact] | None = None,
    find_builder: Callable[[], Builder | None] = no_builder,
) -> Plan:
    """The plan of a rule for a target, from artifacts that are made."""
    context = PlanContext(settings=settings, store=store, target=target, known=known or {}, find_builder=find_builder)
    return rule.drawn_up(context)


def with_other_code(*kinds: str) -> dict[str, Rule]:
    """All rules, those of some kinds as if our code that makes them had changed."""
    changed = lambda _: {"code": "changed"}  # noqa: E731 - a rule's constants
    return {kind: replace(rule, constants=changed) if kind in kinds else rule for kind, rule in rules().items()}


def action_context(stage: Path, settings: Settings, runner: WatchedRunner | None = None) -> ActionContext:
    """What actions work with that need no builder."""
    return ActionContext(
        stage=stage, settings=settings, runner=runner or WatchedRunner(), find_builder=no_builder, say=lambda _: None
    )


def make(plan: Plan, settings: Settings, store: Store) -> Artifact:
    """The artifact of a plan, made in the store; each step must write, and start, what it says."""
    assert plan.key is not None
    made = Made()
    with store.making(plan.artifact, plan.key, wait_seconds=5) as stage:
        runner = WatchedRunner()
        context = action_context(stage, settings, runner)
        for step in plan.steps:
            made |= step.carry_out(context)
            assert unlike(step.invocations, runner.started) == [], step.title
            runner.started.clear()
        return store.keep(plan, stage, made, made_from={}, seconds=0.1)


@dataclass(frozen=True, kw_only=True)
class NamedPlan(Plan):
    """A plan whose key a test chose."""

    chosen: str

    @property
    def key(self) -> str:
        """The chosen key."""
        return self.chosen


def keep(
    store: Store,
    kind: str,
    key: str,
    *,
    target: Target = TARGET,
    made_from: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
    seconds: float = 0.0,
    **planned: Any,
) -> Artifact:
    """An artifact in the store under a key of the test's choice, with some files and whatever else is given."""
    plan = NamedPlan(**{"artifact": kind, "chosen": key, "target": target, "inputs": {}, "steps": (), **planned})
    with store.making(kind, key, wait_seconds=1) as stage:
        for name, text in (files or {}).items():
            (stage / name).write_text(text, "utf-8")
        made = Made(facts=facts or {}, details=details or {})
        return store.keep(plan, stage, made, made_from=made_from or {}, seconds=seconds)


def artifact(kind: str, folder: Path, **given: Any) -> Artifact:
    """A finished artifact that lies somewhere, with empty fields where nothing is given."""
    mappings = {name: {} for name in ("made_for", "made_from", "inputs", "needs", "facts", "details")}
    fields = {"key": "f", "code": "", "outside": "", "made_at": 0.0, "seconds": 0.0}
    return Artifact(**{"kind": kind, "folder": folder, **mappings, **fields, **given})
