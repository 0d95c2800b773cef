"""The build files of a variant: what the native patches make of a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope
from vllm_wheels.core.variants import variants


def constants(name: str | None) -> Mapping[str, Any]:
    """What of variants.toml decides about a variant: its own entry, and what the guard tells of the others."""
    known = variants()
    return {
        "variant": asdict(known[name]) if name else None,
        "variants": {each: [other.floor, other.processors] for each, other in known.items()},
    }


def _plan(context: PlanContext) -> Plan:
    from vllm_wheels.core.artifacts.native import planning  # noqa: PLC0415 - as in ``artifacts.source``

    return planning.plan(context)


RULE = Rule(
    kind="native",
    title="Build files of the variant: sources, flags and definitions, patched",
    needs=("source",),
    scope=Scope.RELEASE | Scope.VARIANT,
    plan=_plan,
    code=("vllm_wheels.core.artifacts.native",),
    constants=constants,
    observed=("build_settings", "What of the user's settings goes into the build files"),
    labels=frozenset({"cplusplus"}),
    phrases={
        "distributions": "distribution name of {rest} changed{values}",
        "unified_baseline": "setting builder.unified_baseline changed{values}",
        "upstream": "what the source demands changed ({rest}){values}",
    },
)
