"""The finished wheel of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope
from vllm_wheels.core.variants import variants


def constants(name: str | None) -> Mapping[str, Any]:
    """The flags that the list of contents names."""
    return {"flags": variants()[name].flags if name else ()}


def _plan(context: PlanContext) -> Plan:
    from vllm_wheels.core.artifacts.wheel import planning  # noqa: PLC0415 - as in ``artifacts.source``

    return planning.plan(context)


RULE = Rule(
    kind="wheel",
    title="The variant's wheel: named, repaired, with its provenance",
    needs=("compiled", "metadata", "tools"),
    scope=Scope.RELEASE | Scope.PYTHON | Scope.VARIANT,
    plan=_plan,
    code=("vllm_wheels.core.artifacts.wheel",),
    constants=constants,
    stage="wheel",
    sidecars=("build.log", "provenance.json", "intoto.json"),
    labels=frozenset({"python"}),
)
