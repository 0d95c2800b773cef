"""The source of a release, unpacked, and what its tree demands."""

from __future__ import annotations

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope


def _plan(context: PlanContext) -> Plan:
    # What only looks at the rules does not load what drawing up a plan needs.
    from vllm_wheels.core.artifacts.source import planning  # noqa: PLC0415

    return planning.plan(context)


RULE = Rule(
    kind="source",
    title="Source of the release, with its hash, and what it demands",
    scope=Scope.RELEASE,
    plan=_plan,
    code=("vllm_wheels.core.artifacts.source",),
    observed=("upstream", "The release as the package index, the git host or the local folder has it now"),
    labels=frozenset({"archive"}),
    phrases={"": "source of the release: {rest} changed{values}"},
)
