"""Tells why an artifact must be made: which of its inputs differ from those of the last one made for the same target."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_wheels.core.engine.plan import Plan
    from vllm_wheels.core.engine.store import Artifact, Store
    from vllm_wheels.core.target import Target

PHRASES: Mapping[str, str] = {
    "compiled.abi": "stable ABI changed{values}",
    "compiled.build": "configuration of the build changed ({rest}){values}",
    "compiled.builder": "{rest} of the builder changed{values}",
    "compiled.native": "flags or build files of {variant} changed",
    "compiled.onednn": "oneDNN changed",
    "compiled.source": "source of the release changed",
    "compiled.torch": "torch changed{values}",
    "metadata.distributions": "distribution name of {rest} changed{values}",
    "metadata.patches_sha256": "code of the patches changed",
    "metadata.source": "source of the release changed",
    "metadata.template_sha256": "README template changed",
    "metadata.torch_version": "setting torch.version changed{values}",
    "metadata.unified_baseline": "setting builder.unified_baseline changed{values}",
    "metadata.upstream": "what the source demands changed ({rest}){values}",
    "metadata.variant": "{rest} of {variant} changed",
    "metadata.variants": "description of variant {rest} changed",
    "metadata.wheel": "setting wheel.{rest} changed{values}",
    "onednn": "oneDNN: {rest} changed{values}",
    "source": "source of the release: {rest} changed{values}",
    "tools": "tools that repair wheels: {rest} changed{values}",
    "torch_env": "torch environment: {rest} changed{values}",
    "verification.checks": "code of the checks changed",
    "verification.index": "package index of the test run changed",
    "verification.neighbours": "wheels of lower variants changed",
    "verification.tools": "{rest}, which checks use, changed{values}",
    "verification.location": "place of the test run changed ({rest}){values}",
    "verification.wheel": "wheel changed",
    "wheel.compiled": "compiled artifact changed",
    "wheel.metadata": "names, texts or patches changed",
    "wheel.tools": "tools that repair wheels changed",
}
"""What a changed input means, by kind of artifact and name of the input; the longest entry that fits is taken.

``{rest}`` is the part of the name below the entry, ``{values}`` what it was and is, where that is short enough to read.
"""

HASH = re.compile(r"[0-9a-f]{40,64}")
READABLE = 30
"""Longest value, in characters, that a reason shows."""

ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class LastMade:
    """What the newest wheel of a release and variant was made of.

    Attributes:
        keys: by kind of artifact; empty where no wheel was made yet.
        artifacts: those of them that the store still has.
    """

    keys: Mapping[str, str]
    artifacts: Mapping[str, Artifact]


def last_made(target: Target, store: Store) -> LastMade:
    """The artifacts of the newest wheel of a target, and its newest verification on the target's Python."""
    keys: dict[str, str] = {}
    verified = None
    for wheel in store.artifacts("wheel"):
        statement = json.loads((wheel.folder / "provenance.json").read_text("utf-8"))
        if statement["release"] == target.release and target.variant in {None, statement["variant"]}:
            keys = {**statement["artifacts"], "wheel": wheel.key}
            verified = wheel.facts["sha256"]
            break
    for verification in store.artifacts("verification") if verified else ():
        if (verification.inputs["wheel"], verification.inputs["python"]) == (verified, target.python):
            keys["verification"] = verification.key
            break
    found = {kind: store.find(kind, key) for kind, key in keys.items()}
    return LastMade(keys=keys, artifacts={kind: artifact for kind, artifact in found.items() if artifact})


def reasons(plan: Plan, last: LastMade) -> tuple[str, ...]:
    """Why an artifact that the store does not have must be made, one clause for each input that changed."""
    before = last.keys.get(plan.artifact)
    if before is None:
        return ("never made before",)
    if plan.unknown:
        return (f"made from {', '.join(plan.unknown)}, to be made first",)
    if before == plan.key:
        return ("no longer in the store",)
    artifact = last.artifacts.get(plan.artifact)
    if artifact is None:
        return ("inputs changed; the last one is no longer in the store, so which of them cannot be told",)
    now = json.loads(json.dumps(plan.inputs))
    found = (_phrase(plan, place, old, new) for place, old, new in _differences(artifact.inputs, now, ()))
    return tuple(dict.fromkeys(found))


def _differences(old: Any, new: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield place, old, new
        return
    for name in dict.fromkeys(chain(old, new)):
        yield from _differences(old.get(name, ABSENT), new.get(name, ABSENT), (*place, name))


def _phrase(plan: Plan, place: tuple[str, ...], old: Any, new: Any) -> str:
    whole = (plan.artifact, *place)
    for length in range(len(whole), 0, -1):
        entry = PHRASES.get(".".join(whole[:length]))
        if entry:
            rest = ".".join(whole[length:]) or whole[-1]
            return entry.format(rest=rest, variant=plan.target.variant, values=_values(old, new))
    return f"{'.'.join(place)} changed{_values(old, new)}"


def _values(old: Any, new: Any) -> str:
    shown = [_shown(value) for value in (old, new)]
    if any(HASH.fullmatch(text) or len(text) > READABLE for text in shown):
        return ""
    return f" from {shown[0]} to {shown[1]}"


def _shown(value: Any) -> str:
    if value is ABSENT or value is None:
        return "nothing"
    return value if isinstance(value, str) and value else json.dumps(value)
