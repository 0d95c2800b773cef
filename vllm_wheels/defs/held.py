"""What is not requested again by itself, because it would only fail again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.variants import flagship

if TYPE_CHECKING:
    import dagster as dg

    from vllm_wheels.core.engine.failures import Failure
    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.target import Target


def held_back(builds: BuildGraph, target: Target) -> dict[str | None, Failure]:
    """Failures of a partition that would only be repeated, by variant; None is what the variants share."""
    now = time.time()
    standing = (failure for failure in builds.failures.of(target.partition) if failure.stands(now))
    return {failure.variant: failure for failure in standing if _is_the_same(builds, failure, target)}


def without(assets: Mapping[dg.AssetKey, str], held: Mapping[str | None, Failure]) -> dict[dg.AssetKey, str]:
    """What of stale assets is requested: no variant that is held back, and nothing where no variant is left."""
    if None in held:
        return {}
    left = {asset: why for asset, why in assets.items() if len(asset.path) == 1 or asset.path[1] not in held}
    return left if not held or any(len(asset.path) > 1 for asset in left) else {}


def _is_the_same(builds: BuildGraph, failure: Failure, target: Target) -> bool:
    """Whether an attempt would be the one that failed: the key has not moved, or the plan fails in the same way."""
    try:
        *_, (plan, _) = builds.plans(failure.kind, replace(target, variant=failure.variant or flagship()))
    except VllmWheelsError as error:
        return failure.key is None and error.what == failure.what
    return plan.key == failure.key
