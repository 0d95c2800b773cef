"""Carries out the plans of source artifacts, with no builder at hand."""

from __future__ import annotations

from vllm_wheels.core.artifacts import onednn as thirdparty
from vllm_wheels.core.artifacts import source
from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.engine.plan import ActionContext, Plan
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.settings import Settings
from vllm_wheels_tests.core.commands import WatchedRunner, unlike

ACTIONS = {**source.ACTIONS, **thirdparty.ACTIONS}


def no_builder() -> Builder:
    message = "a source needs no builder"
    raise AssertionError(message)


def make(plan: Plan, settings: Settings, store: Store) -> Artifact:
    """The artifact of a plan, made in the store; each step must write, and start, what it says."""
    assert plan.key is not None
    facts: dict[str, object] = {}
    with store.making(plan.artifact, plan.key, wait_seconds=5) as stage:
        runner = WatchedRunner()
        context = ActionContext(
            stage=stage, settings=settings, runner=runner, find_builder=no_builder, say=lambda _: None
        )
        for step in plan.steps:
            commands = {"invocations": step.invocations} if step.invocations else {}
            facts |= ACTIONS[step.action](context, **step.arguments, **commands) or {}
            assert unlike(step.invocations, runner.started) == [], step.title
            runner.started.clear()
            assert all(context.path(name).exists() for name in step.writes), step.title
        return store.keep(plan.artifact, plan.key, stage, inputs=plan.inputs, facts=facts, seconds=0.1)
