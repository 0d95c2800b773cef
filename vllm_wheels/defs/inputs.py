"""Inputs from outside as observed assets, so that Dagster sees what became stale and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.variants import variants
from vllm_wheels.defs.keys import observed_key
from vllm_wheels.defs.partitions import PARTITIONS

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.target import Target


UNTOLD = "not known until the builder's image is made"
"""Data version of inputs that nobody can tell: what is made from them is made again, or found in the store then."""


def specs() -> list[dg.AssetSpec]:
    """The observed assets; partitioned as everything is, since each run observes what it used."""
    return [
        dg.AssetSpec(key, description=text, group_name="inputs", partitions_def=PARTITIONS, kinds={"observed"})
        for key, text in _described().items()
    ]


def _described() -> dict[dg.AssetKey, str]:
    found: dict[dg.AssetKey, str] = {}
    for rule in rules().values():
        for name in variants() if rule.observed_by_variant else (None,):
            if (key := observed_key(rule, name)) and rule.observed:
                found[key] = rule.observed[1]
    return found


def look(builds: BuildGraph, target: Target) -> dict[dg.AssetKey, str]:
    """Data versions of the observed assets as they are now, as far as they can be told; plans, makes nothing.

    Raises:
        VllmWheelsError: a server, the builder or a setting does not let a plan be drawn up.
    """
    found: dict[dg.AssetKey, str] = {}
    for plan, _ in builds.plans(list(rules())[-1], target):
        rule = rules().get(plan.artifact)
        # What an artifact that is missing would tell makes nothing stale that is not stale by that artifact.
        if rule and not {*plan.unknown} & {*rule.needs} and (observed := observed_key(rule, target.variant)):
            found[observed] = plan.outside if plan.key else UNTOLD
    return found
