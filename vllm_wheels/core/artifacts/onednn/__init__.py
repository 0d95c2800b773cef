"""The source of oneDNN that a release is compiled with."""

from __future__ import annotations

from vllm_wheels.core.engine.rule import Rule, Scope, planned_by

RULE = Rule(
    kind="onednn",
    title="Source of oneDNN: the release's pin, or what stands in for it",
    needs=("source",),
    scope=Scope.RELEASE,
    plan=planned_by(__name__),
    code=(__name__,),
    observed=("onednn_pin", "What the git host, Debian's mirror or the local folder has of the pinned oneDNN"),
    labels=frozenset({"cplusplus"}),
    phrases={"": "oneDNN: {rest} changed{values}"},
)
