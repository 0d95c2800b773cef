"""What the patches make of a release for a variant: build files and Python code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.engine.rule import Rule, Scope, planned_by
from vllm_wheels.core.variants import deciding, variants


def constants(name: str | None) -> Mapping[str, Any]:
    """What of variants.toml decides about a variant: its entry; of all what the guard and CMake's conditions use."""
    return {
        "variant": deciding(name) if name else None,
        "variants": {each: [other.floor, other.processors, other.cpuinfo] for each, other in variants().items()},
    }


RULE = Rule(
    kind="patched",
    title="Files of the release that the variant's patches change",
    needs=("source",),
    scope=Scope.RELEASE | Scope.VARIANT,
    plan=planned_by(__name__),
    code=(__name__,),
    constants=constants,
    observed=("build_settings", "What of the user's settings goes into the patches"),
    labels=frozenset({"python", "cplusplus"}),
    phrases={
        "licence": "setting wheel.licence changed{values}",
        "distributions": "distribution name of {rest} changed{values}",
        "unified_baseline": "setting builder.unified_baseline changed{values}",
        "upstream": "what the source demands changed ({rest}){values}",
    },
)
