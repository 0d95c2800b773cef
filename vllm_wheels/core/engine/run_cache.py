"""What the build graphs of one run share: plans are drawn up once, and no server is asked the same twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_wheels.core.engine.builder import Builder
    from vllm_wheels.core.engine.plan import Plan, Step
    from vllm_wheels.core.engine.store import Artifact

Name = tuple[str, ...]
"""Kind and parts of the target; see ``Rule.name``."""


@dataclass
class RunCache:
    """What is known by now; builders are kept by whether their output is heard, and what getting one ready takes.

    Remote stores that failed once are left alone for the rest of the run, and files that were found whole are not read
    again.
    """

    artifacts: dict[Name, Artifact] = field(default_factory=dict)
    reported: set[Name] = field(default_factory=set)
    builders: dict[bool, Builder] = field(default_factory=dict)
    failed_remotes: set[str] = field(default_factory=set)
    whole: dict[str, Artifact] = field(default_factory=dict)
    image_steps: tuple[Step[Any], ...] | None = None
    _plans: dict[Name, Plan] = field(default_factory=dict)
    _asking: dict[Name, Lock] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def plan(self, name: Name, draw_up: Callable[[], Plan]) -> Plan:
        """The plan of an artifact, drawn up once unless it has unknown inputs; several threads may ask."""
        with self._lock:
            asking = self._asking.setdefault(name, Lock())
        with asking:
            if name not in self._plans:
                plan = draw_up()
                if plan.unknown:
                    return plan
                self._plans[name] = plan
            return self._plans[name]


_CACHE: ContextVar[RunCache | None] = ContextVar("run_cache", default=None)


def current() -> RunCache:
    """The cache of the run that this thread is in, or a new one."""
    return _CACHE.get() or RunCache()


@contextmanager
def remembering() -> Iterator[None]:
    """Lets all build graphs that this thread makes meanwhile share a cache; within another such run, that one's."""
    token = _CACHE.set(current())
    try:
        yield
    finally:
        _CACHE.reset(token)
