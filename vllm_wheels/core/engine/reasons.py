"""Tells why an artifact is stale: which of its inputs differ from those of the last one of the same target."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.target import Target

if TYPE_CHECKING:
    from vllm_wheels.core.engine.plan import Plan
    from vllm_wheels.core.engine.rule import Rule
    from vllm_wheels.core.engine.store import Artifact, Store

HASH = re.compile(r"[0-9a-f]{40,64}")
READABLE = 30
"""Longest value, in characters, that a reason shows."""

ABSENT = object()


def last_made(rule: Rule, target: Target, store: Store) -> Artifact | None:
    """The newest artifact of a rule for a target; None where none was made yet."""
    wanted = rule.name(target)
    return next((each for each in store.artifacts(rule.kind) if _name(rule, each) == wanted), None)


def _name(rule: Rule, artifact: Artifact) -> tuple[str, ...]:
    made_for = artifact.made_for
    return rule.name(
        Target(release=str(made_for["release"]), python=str(made_for["python"]), variant=made_for["variant"])
    )


def reasons(rule: Rule, plan: Plan, last: Artifact | None) -> tuple[str, ...]:
    """Why an artifact must be made: a clause for each input that differs from those of the last one of its target."""
    if last is None:
        return ("never made before",)
    if plan.unknown:
        return (f"made from {', '.join(plan.unknown)}, to be made first",)
    now = json.loads(json.dumps(plan.inputs))
    found = [_phrase(rule, plan, place, old, new) for place, old, new in _differences(last.inputs, now, ())]
    found += [f"{kind} changed" for kind, version in plan.needs.items() if last.needs.get(kind) != version]
    if last.code != plan.code:
        found.append(f"code or tables of vllm-wheels that make the {plan.artifact} changed")
    if not found and last.outside != plan.outside:
        found.append("commands changed")
    return tuple(dict.fromkeys(found)) or ("no longer in the store",)


def _differences(old: Any, new: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield place, old, new
        return
    for name in dict.fromkeys(chain(old, new)):
        yield from _differences(old.get(name, ABSENT), new.get(name, ABSENT), (*place, name))


def _phrase(rule: Rule, plan: Plan, place: tuple[str, ...], old: Any, new: Any) -> str:
    for length in range(len(place), -1, -1):
        entry = rule.phrases.get(".".join(place[:length]))
        if entry:
            rest = ".".join(place[length:]) or place[-1]
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
