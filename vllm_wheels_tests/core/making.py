"""Carries out the plans of source pieces, with no builder at hand."""

from __future__ import annotations

from vllm_wheels.core import source, thirdparty
from vllm_wheels.core.builders import Builder
from vllm_wheels.core.plan import Bench, Plan
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.store import Piece, Store
from vllm_wheels_tests.core.commands import WatchedRunner, unlike

VERBS = {**source.VERBS, **thirdparty.VERBS}


def no_builder() -> Builder:
    message = "a source needs no builder"
    raise AssertionError(message)


def make(plan: Plan, settings: Settings, store: Store) -> Piece:
    """The piece of a plan, made in the store; each step must write, and start, what it says."""
    assert plan.fingerprint is not None
    facts: dict[str, object] = {}
    with store.making(plan.piece, plan.fingerprint, wait_seconds=5) as stage:
        runner = WatchedRunner()
        bench = Bench(stage=stage, settings=settings, runner=runner, find_builder=no_builder, say=lambda _: None)
        for step in plan.steps:
            commands = {"invocations": step.invocations} if step.invocations else {}
            facts |= VERBS[step.verb](bench, **step.arguments, **commands) or {}
            assert unlike(step.invocations, runner.started) == [], step.title
            runner.started.clear()
            assert all(bench.path(name).exists() for name in step.writes), step.title
        return store.keep(plan.piece, plan.fingerprint, stage, inputs=plan.inputs, facts=facts, seconds=0.1)
