"""CPU torch and the build requirements of a release."""

from __future__ import annotations

from vllm_wheels.core.engine.rule import Rule, Scope, planned_by

RULE = Rule(
    kind="torch_env",
    title="CPU torch and the release's build requirements, locked and proven to hold no CUDA",
    needs=("source",),
    scope=Scope.RELEASE | Scope.PYTHON,
    plan=planned_by(__name__),
    code=(__name__,),
    observed=("packages", "What the package index answers for CPU torch and the build requirements"),
    labels=frozenset({"uv", "pytorch"}),
    phrases={"": "torch environment: {rest} changed{values}"},
)
