"""Which machine can carry out which step: what steps need, what this machine has, and the queues between them.

A queue stands for one kind of need, and for one state of our own code: a worker listens to the queues whose needs it
meets, and never hears of a step that other code has planned. What no worker can do waits in its queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vllm_wheels.core.engine.plan import digest
from vllm_wheels.core.engine.rule import Rule
from vllm_wheels.core.errors import CommandLineError, UnsupportedProcessorError
from vllm_wheels.core.host.machine import cores, memory_available, room
from vllm_wheels.core.host.processors import advice, flags_of
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.patches.cpu_guard import cpu_flags
from vllm_wheels.core.variants import lowest, variant, variants

ANYWHERE = "anywhere"
"""Queue of steps that every machine carries out."""


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a machine can do."""

    cores: int
    gigabytes: float  # of memory that is free now
    disk_gigabytes: float  # of disk that is free now, where artifacts are made
    variants: tuple[str, ...]  # whose floor its processor reaches, lowest first


def abilities(folder: Path) -> Abilities:
    """What this machine can do: memory and cores within its control groups, features as kernel and CPUID tell them.

    Args:
        folder: where artifacts are made.
    """
    memory, disk = round(memory_available(), 1), round(room(folder), 1)
    return Abilities(cores=cores(), gigabytes=memory, disk_gigabytes=disk, variants=_reached())


def _reached() -> tuple[str, ...]:
    try:
        best = advice(flags_of(" ".join(cpu_flags() or ()))).variant.name
    except (UnsupportedProcessorError, CommandLineError):
        return ()
    names = list(variants())
    return tuple(names[: names.index(best) + 1])


def need(rule: Rule, name: str | None) -> str:
    """The kind of need that a step has, in a word: a queue's name without our code's."""
    if rule.hardware.processor and name:
        return f"{rule.kind}-{name}"
    return rule.kind if rule.hardware.gigabytes else ANYWHERE


def is_met(rule: Rule, name: str | None, by: Abilities) -> bool:
    """Whether a machine has what a step needs."""
    asked = rule.hardware
    fits = by.gigabytes >= asked.gigabytes and by.disk_gigabytes >= asked.disk_gigabytes and by.cores >= asked.cores
    return fits and (not asked.processor or name in by.variants)


def queue(rule: Rule, name: str | None) -> str:
    """The queue in which a step waits for a machine."""
    return _of_this_code(need(rule, name))


def release_queue() -> str:
    """The queue of steps that publish; they need a token and no machine in particular."""
    return _of_this_code(ANYWHERE)


def queues(by: Abilities) -> list[str]:
    """The queues of all steps that a machine can carry out, in the order of the steps."""
    met = dict.fromkeys(need(rule, name) for rule, name in _steps() if is_met(rule, name, by))
    return [_of_this_code(each) for each in met]


def floor_above_lowest(name: str) -> tuple[str, ...]:
    """Flags of a variant's floor that not every machine of ours is taken to have."""
    return tuple(flag for flag in variant(name).floor if flag not in lowest().floor)


def _steps() -> Iterator[tuple[Rule, str | None]]:
    for rule in rules().values():
        for name in variants() if rule.per_variant else (None,):
            yield rule, name


def _of_this_code(name: str) -> str:
    return f"{name}.{code()}"


@cache
def code() -> str:
    """Hash of all code and data of ours that makes or judges artifacts, short enough to read."""
    return digest({f"{rule.kind}/{name}": rule.code_version(name) for rule, name in _steps()})[:10]
