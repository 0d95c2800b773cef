"""What a check of the machine finds, and what every check may use."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vllm_wheels.core.host.machine import Distribution, packages
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.host.secrets import Secrets

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

State = Literal["ok", "problem", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor: a ``problem`` stops a build with these settings, a ``note`` does not."""

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Machine and settings that are checked; ``engine`` tells why no container engine answers, None where one does."""

    settings: Settings
    python: str
    distribution: Distribution
    engine: str | None
    seconds: float
    runner: Runner = field(default_factory=Runner)
    secrets: Secrets = field(default_factory=Secrets)

    @property
    def contained(self) -> bool:
        """Will the compiler run in containers?"""
        kind = self.settings.builder.kind
        return kind == "container" or (kind == "auto" and self.engine is None)

    @property
    def substitutes(self) -> bool:
        """May substitutes stand in for official artifacts?"""
        return self.settings.substitutes == "allow"

    def install(self, program: str) -> str:
        """What to type to install a program of packages.toml on this distribution."""
        table = packages().get(self.distribution.manager or "", {})
        package = table.get("programs", {}).get(program)
        if package is None:
            return f"install {program} by hand"
        return typed(f"{table['command']} {package.format(python=self.python, digits=self.python.replace('.', ''))}")


def ok(name: str, found: str) -> Finding:
    """A check of the machine that passed."""
    return Finding(name=name, state="ok", found=found)


def lacking(name: str, found: str, remedy: str, *, needed: bool) -> Finding:
    """Something is not as it should be: a problem where it is needed, else only worth a note."""
    return Finding(name=name, state="problem" if needed else "note", found=found, remedy=remedy)


def replaceable(name: str, found: str, remedy: str, *, substitutes: bool) -> Finding:
    """An official artifact is out of reach: a problem, unless its substitute may stand in."""
    if substitutes:
        return Finding(name=name, state="note", found=f"{found}; a substitute will stand in")
    return Finding(name=name, state="problem", found=found, remedy=remedy)


def typed(command: str) -> str:
    """A command for root as this user types it."""
    return command if os.geteuid() == 0 else f"sudo {command}"
