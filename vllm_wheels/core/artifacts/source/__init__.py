"""The source of a release, unpacked, and what its tree demands."""

from __future__ import annotations

from vllm_wheels.core.engine.rule import Rule, Scope, planned_by

RULE = Rule(
    kind="source",
    title="Source of the release, with its hash, and what it demands",
    scope=Scope.RELEASE,
    plan=planned_by(__name__),
    code=(__name__,),
    observed=("upstream", "The release as the package index, the git host or the local folder has it now"),
    labels=frozenset({"archive"}),
    phrases={"": "source of the release: {rest} changed{values}"},
)
