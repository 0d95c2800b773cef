"""The finished wheel of a variant."""

from __future__ import annotations

from vllm_wheels.core.engine.rule import COMPILING, Rule, Scope, planned_by

RULE = Rule(
    kind="wheel",
    title="The variant's wheel: named, packed, with its provenance",
    needs=("compiled", "repaired", "metadata"),
    scope=Scope.RELEASE | Scope.PYTHON | Scope.VARIANT,
    plan=planned_by(__name__),
    code=(__name__,),
    stage="wheel",
    # Asked for alone, its step compiles what is missing.
    hardware=COMPILING,
    sidecars=("build.log", "provenance.json", "intoto.json"),
    labels=frozenset({"python"}),
)
