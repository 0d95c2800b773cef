"""The finished wheel of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.engine.rule import Rule, Scope, planned_by
from vllm_wheels.core.variants import variants


def constants(name: str | None) -> Mapping[str, Any]:
    """The flags that the list of contents names."""
    return {"flags": variants()[name].flags if name else ()}


RULE = Rule(
    kind="wheel",
    title="The variant's wheel: named, repaired, with its provenance",
    needs=("compiled", "metadata", "tools"),
    scope=Scope.RELEASE | Scope.PYTHON | Scope.VARIANT,
    plan=planned_by(__name__),
    code=(__name__,),
    constants=constants,
    stage="wheel",
    # Asked for alone, its step compiles what is missing.
    pool="compile",
    sidecars=("build.log", "provenance.json", "intoto.json"),
    labels=frozenset({"python"}),
)
