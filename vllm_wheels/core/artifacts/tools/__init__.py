"""auditwheel and patchelf, for use inside a builder."""

from __future__ import annotations

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope


def _plan(context: PlanContext) -> Plan:
    from vllm_wheels.core.artifacts.tools import planning  # noqa: PLC0415 - as in ``artifacts.source``

    return planning.plan(context)


RULE = Rule(
    kind="tools",
    title="Tools that repair wheels inside the builder",
    scope=Scope.PYTHON,
    plan=_plan,
    code=("vllm_wheels.core.artifacts.tools",),
    observed=("repair_tools", "What the package index answers for the tools that repair wheels"),
    labels=frozenset({"uv"}),
    phrases={"": "tools that repair wheels: {rest} changed{values}"},
)
