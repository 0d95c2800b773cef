"""Inputs from outside as observed assets, so that Dagster sees what became stale and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import dagster as dg

from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.variants import variants
from vllm_wheels.defs.keys import observed_key
from vllm_wheels.defs.partitions import PARTITIONS

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.target import Target


class Known(Protocol):
    """A finished artifact, or the plan of one."""

    @property
    def outside(self) -> str:
        """Hash of what determines it from outside."""


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


def version(kind: str, variant: str | None, known: Known) -> tuple[dg.AssetKey, str] | None:
    """Key and data version of the observed asset of an artifact or plan; None where its rule has no such inputs."""
    key = observed_key(rules()[kind], variant)
    return (key, known.outside) if key else None


def look(builds: BuildGraph, target: Target) -> dict[dg.AssetKey, str]:
    """Data versions of the observed assets as they are now, as far as they can be told; plans, makes nothing.

    Raises:
        VllmWheelsError: a server, the builder or a setting does not let a plan be drawn up.
    """
    last = list(rules())[-1]
    plans = [plan for plan, _ in builds.plans(last, target) if plan.artifact in rules() and plan.key]
    found = (version(plan.artifact, target.variant, plan) for plan in plans)
    return dict(each for each in found if each)
