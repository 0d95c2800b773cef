"""Follows artifacts while they are made: what is done, how far the compiler is, and how long the rest will take."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from vllm_wheels.core.artifacts.compiled.planning import Compiling
from vllm_wheels.core.builders.compiler_cache import statistics
from vllm_wheels.core.engine.graph import IMAGE
from vllm_wheels.core.engine.rule import Stage
from vllm_wheels.core.operations.builds import rules

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import Watcher
    from vllm_wheels.core.engine.plan import Plan
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.target import Target

COUNTER = re.compile(r"\[(\d+)/(\d+)\] ")
"""At the beginning of a line of ninja; see NINJA_STATUS in ``compile``."""

EAGERNESS = 4
"""One in so many of the steps done, the compiler's own speed alone tells the rest: it knows what else runs here."""

ENOUGH_FILES = 10
"""How many files the compiler's cache was asked for before its hits tell anything."""

LEAST_MISSES = 0.05
"""A file from the cache takes its time as well."""

Key = tuple[str, "Target"]


_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Lets a watcher follow every build graph of this thread; Dagster, which stands between, passes no objects on."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def watcher() -> Watcher | None:
    """The watcher of this thread's build graphs; None where there is none."""
    return _WATCHER.get()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """How far one stage of one wheel is; ``kept`` is done without making anything, and only compiling has a counter."""

    state: Literal["waiting", "working", "done", "kept"]
    counter: tuple[int, int] | None = None


@dataclass(kw_only=True)
class Progress:
    """What became so far of the artifacts that were planned; a watcher.

    Attributes:
        estimates: seconds that each planned artifact takes; 0 for one that the store has.
        assumed: part of the files that the compiler's cache lacks, by compile, as the estimates have it.
        current: what is being made, and since when; None between two artifacts.
        cache: hits and misses of the compiler's cache in all compiles so far.
    """

    estimates: Mapping[Key, float]
    assumed: Mapping[Key, float] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic
    current: tuple[Plan, float] | None = None
    counter: tuple[int, int] | None = None
    cache: tuple[int, int] = (0, 0)
    began: float = field(init=False)
    _ready: dict[Key, bool] = field(default_factory=dict)
    _seconds: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = self.now()

    def begun(self, plan: Plan) -> None:
        """Notes what is being made."""
        self.current, self.counter = (plan, self.now()), None

    def ready(self, target: Target, artifact: Artifact, *, made: bool) -> None:
        """Notes what is there; an artifact that was made counts as made, also when a later step finds it again."""
        key = (artifact.kind, target)
        self._ready[key] = made or self._ready.get(key, False)
        if made:
            if self.current:
                self._seconds[key] = self.now() - self.current[1]
            found = artifact.details.get("ccache")
            if found:
                self.cache = (self.cache[0] + found["hits"], self.cache[1] + found["misses"])
        self.current, self.counter = None, None

    def line(self, text: str) -> None:
        """Reads the compiler's counter."""
        if match := COUNTER.match(text):
            self.counter = int(match[1]), int(match[2])

    def targets(self) -> list[Target]:
        """The wheels that are made, in the order in which they were planned."""
        return list(dict.fromkeys(target for _, target in self.estimates if target.variant))

    def stages(self) -> list[str]:
        """The stages that something was planned for."""
        planned = {_stage(kind) for kind, _ in self.estimates}
        return [stage for stage in get_args(Stage) if stage in planned]

    def cell(self, stage: str, target: Target) -> Cell:
        """How far a stage of a wheel is."""
        keys = [key for key in self.estimates if _stage(key[0]) == stage and key[1] in {target, target.shared()}]
        if self._making() in keys:
            return Cell(state="working", counter=self.counter)
        done = [self._ready[key] for key in keys if key in self._ready]
        if len(done) < len([key for key in keys if key[0] != IMAGE]):
            return Cell(state="working" if any(done) else "waiting")
        return Cell(state="done" if any(done) else "kept")

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.now() - self.began

    def spent(self, target: Target) -> float:
        """Seconds that went into a wheel's own artifacts so far."""
        past = sum(seconds for (_, owner), seconds in list(self._seconds.items()) if owner == target)
        # One read, since a display looks on from another thread.
        current = self.current
        return past + (self.now() - current[1] if current and current[0].target == target else 0.0)

    def remaining(self, target: Target | None = None) -> float:
        """Seconds that are left, by estimate: of one wheel, or of everything."""
        keys = [key for key in self.estimates if target is None or key[1] in {target, target.shared()}]
        return sum(self._left(key) for key in keys if key not in self._ready)

    def _left(self, key: Key) -> float:
        current = self.current
        if current is None or (current[0].artifact, current[0].target) != key:
            return self.estimates[key]
        build = _build_folder(current[0])
        asked = statistics(build) if build else {}
        colder = coldness(asked, self.assumed.get(key, 1.0))
        return left(self.estimates[key] * colder, self.now() - current[1], self.counter)

    def _making(self) -> Key | None:
        current = self.current
        return (current[0].artifact, current[0].target) if current else None

    def cache_now(self) -> tuple[int, int]:
        """Hits and misses of the compiler's cache, those of the compile that is going on among them."""
        current = self.current
        build = _build_folder(current[0]) if current else None
        found = statistics(build) if build else {"hits": 0, "misses": 0}
        return self.cache[0] + found["hits"], self.cache[1] + found["misses"]


def coldness(asked: Mapping[str, int], assumed: float) -> float:
    """By how much a compile takes longer than estimated, or less long, for what the compiler's cache lacks."""
    files = sum(asked.values())
    if files < ENOUGH_FILES:
        return 1.0
    return max(asked["misses"] / files, LEAST_MISSES) / max(assumed, LEAST_MISSES)


def left(estimate: float, spent: float, counter: tuple[int, int] | None) -> float:
    """Seconds that an artifact still takes.

    Past builds are believed at the beginning, the compiler's own speed more and more, and soon nothing else.
    """
    expected = max(estimate - spent, 0.0)
    if counter is None or not counter[0]:
        return expected
    done, whole = counter
    share = min(1.0, EAGERNESS * done / whole)
    return share * (spent / done * (whole - done)) + (1 - share) * expected


def _stage(kind: str) -> Stage:
    # The image of the builder is no artifact of the store, and has no rule.
    return rules()[kind].stage if kind in rules() else "prepare"


def _build_folder(plan: Plan) -> Path | None:
    return next(
        (Path(step.arguments.folders.build) for step in plan.steps if isinstance(step.arguments, Compiling)), None
    )
