"""Names, texts, requirements and patched Python code of a variant."""

from __future__ import annotations

from vllm_wheels.core.artifacts.patched import constants
from vllm_wheels.core.engine.rule import Rule, Scope, planned_by

RULE = Rule(
    kind="metadata",
    title="Names, texts, requirements and patches of the variant, as a diff",
    needs=("source", "patched"),
    scope=Scope.RELEASE | Scope.VARIANT,
    plan=planned_by(__name__),
    code=(__name__,),
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
