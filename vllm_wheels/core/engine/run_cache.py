"""What workshops of one run share, so that no server, index or compiler is asked the same twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_wheels.core.builders import Builder
    from vllm_wheels.core.engine.plan import Plan
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.target import Target

REACH: Mapping[str, tuple[str, ...]] = {
    "source": ("release",),
    "onednn": ("release",),
    "torch_env": ("release", "python"),
    "tools": ("python",),
}
"""Artifacts whose plan is drawn up with questions to others, and the parts of the target that it depends on."""


@dataclass
class Memory:
    """What is known by now.

    Attributes:
        artifacts: what is ready, by kind and target.
        builders: where compilers run, once somebody asked; one whose output is heard, and one for those who keep quiet.
    """

    artifacts: dict[tuple[str, Target], Artifact] = field(default_factory=dict)
    builders: dict[bool, Builder] = field(default_factory=dict)
    _plans: dict[tuple[str, ...], Plan] = field(default_factory=dict)
    _asking: dict[tuple[str, ...], Lock] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def plan(self, kind: str, target: Target, draw_up: Callable[[], Plan]) -> Plan:
        """The plan of an artifact, drawn up once for all targets that share what it depends on; several threads may ask.

        Args:
            kind: of the artifact.
            target: what it is made for.
            draw_up: asks whoever must be asked.
        """
        if kind not in REACH:
            return draw_up()
        name = (kind, *(str(getattr(target, part)) for part in REACH[kind]))
        with self._lock:
            asking = self._asking.setdefault(name, Lock())
        with asking:
            if name not in self._plans:
                plan = draw_up()
                if plan.unknown:
                    return plan
                self._plans[name] = plan
            return replace(self._plans[name], target=target.shared())


_MEMORY: ContextVar[Memory | None] = ContextVar("memory", default=None)


def current() -> Memory:
    """The memory of the run that this thread is in, or a new one."""
    return _MEMORY.get() or Memory()


@contextmanager
def remembering() -> Iterator[None]:
    """Lets all workshops that this thread makes meanwhile share one memory; within another such run, that one's."""
    token = _MEMORY.set(current())
    try:
        yield
    finally:
        _MEMORY.reset(token)
