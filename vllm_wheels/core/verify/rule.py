"""The rule of artifact "verification"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.engine.rule import TRYING, Rule, Scope, planned_by
from vllm_wheels.core.variants import deciding, variants

if TYPE_CHECKING:
    from vllm_wheels.core.engine.plan import Plan


def where_nothing_lacks(plan: Plan) -> Plan | None:
    """The plan on a machine whose processor has all that the wheel is for: its report serves every other machine."""
    return replace(plan, inputs={**plan.inputs, "lacking": []}) if plan.inputs.get("lacking") else None


def constants(name: str | None) -> Mapping[str, Any]:
    """What the checks of a variant's wheel use of variants.toml: its own entry, and what the others promise.

    A wheel may say that it holds the machine code of another variant.
    """
    known = variants()
    promised = {each.name: [each.promises, each.forbids] for each in known.values()}
    return {"variant": deciding(name) if name else None, "promised": promised, "order": list(known)}


RULE = Rule(
    kind="verification",
    title="Report of the checks on exactly this wheel, on this Python",
    needs=("torch_env", "wheel"),
    scope=Scope.RELEASE | Scope.PYTHON | Scope.VARIANT,
    plan=planned_by(__package__),
    code=("vllm_wheels.core.verify.planning",),
    constants=constants,
    observed=("test_setup", "Where and with what the wheel is tried: settings, tools of the checks, lower variants"),
    observed_by_variant=True,
    stage="verify",
    sidecars=("report.json", "report.md", "report.html"),
    labels=frozenset({"pytest"}),
    slot="trial",
    hardware=TRYING,
    better=where_nothing_lacks,
    phrases={
        "commands": "commands of the test runs changed",
        "index": "package index of the test run changed",
        "location": "test location changed ({rest}){values}",
        "neighbours": "wheels of lower variants changed",
        "tools": "{rest}, which checks use, changed{values}",
    },
)
