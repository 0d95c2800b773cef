"""Tags of runs: for what a run is, who asked for it, and why each of its assets is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vllm_wheels.defs.keys import all_keys

if TYPE_CHECKING:
    import dagster as dg

    from vllm_wheels.core.target import Target

AUTOMATIC = "vllm-wheels/automatic"
"""Tag of a run that nobody asked for, with the schedule or sensor that did; dagster.yaml limits them."""

WHY = "why"
"""Namespace of the tags that say for each asset why it is made."""


def of(target: Target, assets: Iterable[dg.AssetKey]) -> dict[str, str]:
    """Release, Python and variants of a run, by which a person finds it among others."""
    names = sorted({asset.path[1] for asset in assets if len(asset.path) > 1}, key=_position)
    shown = {"release": target.release, "python": target.python, "variants": ", ".join(names)}
    return {f"vllm-wheels/{name}": value for name, value in shown.items() if value}


def reasons(why: Mapping[dg.AssetKey, str]) -> dict[str, str]:
    """A tag per asset; the names of tags have one slash at most."""
    return {f"{WHY}/{'.'.join(asset.path)}": reason for asset, reason in why.items() if reason}


def _position(variant: str) -> int:
    return [asset.path[-1] for asset in all_keys()].index(variant)
