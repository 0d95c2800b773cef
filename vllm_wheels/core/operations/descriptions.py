"""Looks at releases before they are built: what their trees hold, and what the patches make of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_wheels.core.artifacts.metadata.planning import patch_set
from vllm_wheels.core.artifacts.source.planning import facts_of
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.patches.description import Description, describe
from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_wheels.core.patches.upstream import Upstream
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target
    from vllm_wheels.core.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the patches make of a release for a variant: the code of another, a refusal with its reason, or neither."""

    variant: str
    same_code_as: str | None = None
    refused: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Look:
    """A release, described and tried."""

    description: Description
    outcomes: tuple[Outcome, ...]


def look(settings: Settings, target: Target, *, say: Callable[[str], None]) -> Look:
    """Fetches a release's source where the store lacks it, describes it, and patches it for each variant.

    Raises:
        SourceError: the tree cannot be understood.
        NetworkError: the source is out of reach.
    """
    source = build_graph(settings, say=say).ensure("source", target.shared())
    tree, upstream = source.folder / "tree", facts_of(source)
    outcomes = tuple(outcome(tree, upstream, each, settings) for each in variants().values())
    return Look(description=describe(tree, release=target.release), outcomes=outcomes)


def outcome(tree: Path, upstream: Upstream, variant: Variant, settings: Settings) -> Outcome:
    """Patches a tree for a variant, in memory."""
    try:
        facts = patch_set(tree, upstream=upstream, variant=variant, settings=settings).facts
    except VllmWheelsError as error:
        return Outcome(variant=variant.name, refused=error.why)
    return Outcome(variant=variant.name, same_code_as=facts["same_code_as"], notices=tuple(facts["notices"]))
