"""CPU torch and the build requirements of a release."""

from __future__ import annotations

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope


def _plan(context: PlanContext) -> Plan:
    from vllm_wheels.core.artifacts.torch_env import planning  # noqa: PLC0415 - as in ``artifacts.source``

    return planning.plan(context)


RULE = Rule(
    kind="torch_env",
    title="CPU torch and the release's build requirements, locked and proven to hold no CUDA",
    needs=("source",),
    scope=Scope.RELEASE | Scope.PYTHON,
    plan=_plan,
    code=("vllm_wheels.core.artifacts.torch_env",),
    observed=("packages", "What the package index answers for CPU torch and the build requirements"),
    labels=frozenset({"uv", "pytorch"}),
    phrases={"": "torch environment: {rest} changed{values}"},
)
