"""The source of oneDNN that a release is compiled with."""

from __future__ import annotations

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope


def _plan(context: PlanContext) -> Plan:
    from vllm_wheels.core.artifacts.onednn import planning  # noqa: PLC0415 - as in ``artifacts.source``

    return planning.plan(context)


RULE = Rule(
    kind="onednn",
    title="Source of oneDNN: the release's pin, or what stands in for it",
    needs=("source",),
    scope=Scope.RELEASE,
    plan=_plan,
    code=("vllm_wheels.core.artifacts.onednn",),
    observed=("onednn_pin", "What the git host, Debian's mirror or the local folder has of the pinned oneDNN"),
    labels=frozenset({"cplusplus"}),
    phrases={"": "oneDNN: {rest} changed{values}"},
)
