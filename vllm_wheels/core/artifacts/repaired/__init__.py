"""The compiled code of a variant with outside libraries grafted, and the platform tag that it deserves."""

from __future__ import annotations

from vllm_wheels.core.engine.rule import COMPILING, Rule, Scope, planned_by

RULE = Rule(
    kind="repaired",
    title="The variant's extensions, with outside libraries grafted by auditwheel, and their platform tag",
    needs=("compiled", "tools"),
    scope=Scope.RELEASE | Scope.PYTHON | Scope.VARIANT,
    plan=planned_by(__name__),
    code=(__name__,),
    observed=("names", "Name and version of the distribution, by the user's settings"),
    observed_by_variant=True,
    stage="wheel",
    # Asked for alone, its step compiles what is missing.
    hardware=COMPILING,
    labels=frozenset({"python"}),
    phrases={"distribution": "name of the distribution changed{values}", "version": "version changed{values}"},
)
