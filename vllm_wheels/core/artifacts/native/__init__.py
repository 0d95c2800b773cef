"""The build files of a variant, apart from its other patched files, for they alone decide what is compiled."""

from __future__ import annotations

from vllm_wheels.core.engine.rule import Rule, Scope, planned_by

RULE = Rule(
    kind="native",
    title="Build files of the variant: sources, flags and definitions, patched",
    needs=("patched",),
    scope=Scope.RELEASE | Scope.VARIANT,
    plan=planned_by(__name__),
    code=(__name__,),
    labels=frozenset({"cplusplus"}),
)
