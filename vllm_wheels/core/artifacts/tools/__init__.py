"""auditwheel and patchelf, for use inside a builder."""

from __future__ import annotations

from vllm_wheels.core.engine.rule import Rule, Scope, planned_by

RULE = Rule(
    kind="tools",
    title="Tools that repair wheels inside the builder",
    scope=Scope.PYTHON,
    plan=planned_by(__name__),
    code=(__name__,),
    observed=("repair_tools", "What the package index answers for the tools that repair wheels"),
    labels=frozenset({"uv"}),
    phrases={"": "tools that repair wheels: {rest} changed{values}"},
)
