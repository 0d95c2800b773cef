"""What the sensors do: find new releases of vLLM, and notice inputs that moved although their names did not."""

from __future__ import annotations

import json
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import NetworkError
from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.operations.tracked_releases import Announced, announced, newest, old_enough
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.defs import staleness
from vllm_wheels.defs.freshness import report_newest
from vllm_wheels.defs.partitions import PARTITIONS, PYTHONS, registered
from vllm_wheels.defs.schedules import busy, kept_up_to_date, request, tracked


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the release sensor remembers from tick to tick.

    Attributes:
        first_seen: when each announced release was first seen, in seconds since the epoch.
        handled: releases that were registered, or were there before the first tick.
    """

    first_seen: Mapping[str, float] = field(default_factory=dict)
    handled: tuple[str, ...] = ()

    @classmethod
    def parse(cls, cursor: str | None) -> Memory:
        """The memory that a cursor holds; an empty one where there is none."""
        if not cursor:
            return cls()
        held = json.loads(cursor)
        return cls(first_seen=held["first_seen"], handled=tuple(held["handled"]))

    def cursor(self) -> str:
        """The memory as a cursor."""
        return json.dumps({"first_seen": dict(self.first_seen), "handled": sorted(self.handled)})


def new_among(
    found: Sequence[Announced], memory: Memory, settings: Settings, *, registered: Sequence[str], now: float
) -> tuple[list[Announced], Memory]:
    """Which of the announced releases to register now, and what to remember of it.

    At the first tick everything is new: only the newest is taken, or a fresh installation would flood itself. Later an
    exclusion may be lifted: so nothing is ever taken that is not among the newest releases that are kept up to date.
    """
    first_seen = {release.version: memory.first_seen.get(release.version, now) for release in found}
    ripe = [one for one in found if old_enough(one, settings, first_seen=first_seen[one.version], now=now)]
    fresh = [one for one in ripe if one.version not in memory.handled] if memory.handled else ripe[:1]
    kept = newest({*registered, *(one.version for one in ripe)}, settings)
    taken = [one for one in fresh if one.version in kept and one.version not in registered]
    handled = {*memory.handled, *(one.version for one in ripe)}
    return taken, Memory(first_seen=first_seen, handled=tuple(handled))


def new_releases(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One tick of the sensor of new releases: registers them and requests their wheels."""
    current = configuration.load()
    try:
        found = announced(current)
    except NetworkError as error:
        return dg.SkipReason(f"{error.what}: {error.why}; asked again at the next tick")
    memory = Memory.parse(context.cursor)
    taken, memory = new_among(found, memory, current, registered=registered(context.instance), now=time.time())
    if found:
        report_newest(context.instance, found[0].version, pythons=_pythons(found[0], current), settings=current)
    if not taken:
        context.update_cursor(memory.cursor())
        return dg.SkipReason(f"nothing new among {len(found)} releases")
    return dg.SensorResult(
        dynamic_partitions_requests=[
            PARTITIONS.build_add_request(
                [target.partition for release in taken for target in _targets(release, current)]
            )
        ],
        run_requests=[each for release in taken for each in _requests(release, current, busy(context.instance))],
        cursor=memory.cursor(),
    )


def moved_inputs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One tick of the sensor of inputs: observes what changed, which marks what is stale for the nightly rebuild."""
    current = configuration.load()
    builds = build_graph(current, say=context.log.info)
    try:
        chosen = tracked(context.instance, builds)
    except NetworkError as error:
        return dg.SkipReason(f"{error.what}: {error.why}; asked again at the next tick")
    moved = staleness.observe(context.instance, builds, chosen, context.log.warning)
    text = "; ".join(f"{partition}: {', '.join(names)}" for partition, names in moved.items())
    return dg.SkipReason(f"moved, to be rebuilt by night: {text}" if moved else "nothing moved")


def _pythons(release: Announced, settings: Settings) -> list[str]:
    return [python for python in settings.automation.pythons or PYTHONS if supports(release.requires_python, python)]


def _targets(release: Announced, settings: Settings) -> list[Target]:
    return [Target(release=release.version, python=python) for python in _pythons(release, settings)]


def _requests(release: Announced, settings: Settings, at_work: Container[str]) -> list[dg.RunRequest]:
    """A run per Python of a new release, but where one is at it already: the nightly rebuild may have come first."""
    why = dict.fromkeys(kept_up_to_date(settings), "new release")
    return [
        request(f"{target.release} {target.python}", target, why, asked_by="new_releases")
        for target in _targets(release, settings)
        if target.partition not in at_work
    ]
