"""Names, texts, requirements and Python-level patches of a variant."""

from __future__ import annotations

from vllm_wheels.core.artifacts.native import constants
from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope


def _plan(context: PlanContext) -> Plan:
    from vllm_wheels.core.artifacts.metadata import planning  # noqa: PLC0415 - as in ``artifacts.source``

    return planning.plan(context)


RULE = Rule(
    kind="metadata",
    title="Names, texts, requirements and patches of the variant, as a diff",
    needs=("source",),
    scope=Scope.RELEASE | Scope.VARIANT,
    plan=_plan,
    code=("vllm_wheels.core.artifacts.metadata",),
    constants=constants,
    observed=("settings", "What of the user's settings goes into names and texts, with the README template"),
    labels=frozenset({"markdown"}),
    phrases={
        "distributions": "distribution name of {rest} changed{values}",
        "template_sha256": "README template changed",
        "torch_version": "setting torch.version changed{values}",
        "unified_baseline": "setting builder.unified_baseline changed{values}",
        "upstream": "what the source demands changed ({rest}){values}",
        "wheel": "setting wheel.{rest} changed{values}",
    },
)
