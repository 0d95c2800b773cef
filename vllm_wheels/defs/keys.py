"""Names of the assets and what each is made from, derived from the rules of the core."""

from __future__ import annotations

import dagster as dg

from vllm_wheels.core.engine.rule import Rule
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.variants import flagship, variants

RELEASE = "release"
"""The one asset that is no artifact of the store: what was published where."""

JOB = "build"
"""With the variants, the name of the job in which the command line makes assets."""

JUDGED = "verification"
"""The kind that a release waits for."""


OVERVIEW = "overview"
"""The asset that holds the matrix of all wheels."""


def kinds() -> list[str]:
    """Every kind of asset that is made here, each after those that it needs."""
    return [*rules(), RELEASE]


def per_variant(kind: str) -> bool:
    """Whether each variant has an asset of its own."""
    return kind == RELEASE or rules()[kind].per_variant


def key(kind: str, variant: str | None) -> dg.AssetKey:
    """Key of an asset: the variant is in it where each variant has one of its own."""
    return dg.AssetKey([kind, variant] if variant and per_variant(kind) else [kind])


def all_keys() -> list[dg.AssetKey]:
    """Keys of every asset that is made here, shared ones first."""
    return [key(kind, name) for kind in kinds() for name in (variants() if per_variant(kind) else [None])]


def observed_key(rule: Rule, variant: str | None) -> dg.AssetKey | None:
    """Key of the asset that stands for a rule's inputs from outside; None where it has none."""
    if rule.observed is None:
        return None
    return dg.AssetKey([rule.observed[0], variant] if variant and rule.observed_by_variant else [rule.observed[0]])


def needs(kind: str, variant: str | None) -> dict[dg.AssetKey, bool]:
    """Keys of what an asset is made from; True for an observed one."""
    if kind == RELEASE:
        return {key(JUDGED, variant): False}
    rule = rules()[kind]
    observed = observed_key(rule, variant)
    return {key(need, variant): False for need in rule.needs} | ({observed: True} if observed else {})


def earlier(kind: str, variant: str | None) -> list[dg.AssetKey]:
    """Assets that come before one in a run although it is not made from them: the flagship is published last."""
    if (kind, variant) != (RELEASE, flagship()):
        return []
    return [key(RELEASE, name) for name in variants() if name != variant]
