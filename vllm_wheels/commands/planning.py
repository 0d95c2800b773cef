"""Draws up the plans of several wheels and shows them in a table; shared by ``plan`` and ``build``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.commands.options import say
from vllm_wheels.core.engine.rendering import Document, as_json, document, duration, to_download, totals
from vllm_wheels.core.errors import EnvironmentResolutionError
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.host.machine import memory_available, room
from vllm_wheels.core.index.releases import require_python
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from vllm_wheels.core.engine.rendering import PlannedArtifact
    from vllm_wheels.core.operations.progress import Key
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

SHARED_SHARE = 0.25
"""Part of a first guess that a release's second variant takes: oneDNN, two thirds of a build, comes from the compiler's
cache (measured: 0.32.0 on two cores, 1323 s for the first variant and 230 to 335 s for each other one)."""

NOTHING = "nothing to do: the store has every artifact"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Wheels and their plans, in the same order."""

    targets: tuple[Target, ...]
    documents: tuple[Document, ...]

    def artifacts(self) -> Iterator[tuple[Key, PlannedArtifact]]:
        """Every artifact once, also where several wheels are made from it."""
        known = rules()
        seen = set()
        for target, shown in zip(self.targets, self.documents, strict=True):
            for artifact in shown.artifacts:
                rule = known.get(artifact.artifact)
                key = artifact.artifact, rule.target(target) if rule else target.shared()
                if key not in seen:
                    seen.add(key)
                    yield key, artifact

    def to_be_made(self) -> list[tuple[Key, PlannedArtifact]]:
        """The artifacts that the store does not have."""
        return [(key, artifact) for key, artifact in self.artifacts() if artifact.estimate]

    def notices(self) -> list[str]:
        """What the user must be told, each line once."""
        return list(dict.fromkeys(notice for _, artifact in self.artifacts() for notice in artifact.notices))

    def estimates(self) -> dict[Key, float]:
        """Seconds by artifact; 0 for what the store has."""
        found: dict[Key, float] = {}
        guessed = set()
        for (kind, target), artifact in self.artifacts():
            seconds = artifact.estimate.seconds if artifact.estimate else 0.0
            if kind == "compiled" and artifact.estimate and not artifact.estimate.past_runs:
                share = SHARED_SHARE if target.release in guessed else 1.0
                guessed.add(target.release)
                seconds *= share
            found[kind, target] = seconds
        return found


def draw_up(settings: Settings, targets: Sequence[Target], kind: str) -> Planned:
    """The plans of wheels, up to and with one kind of artifact.

    Raises:
        VllmWheelsError: a server, the builder or a setting does not let a plan be drawn up.
    """
    builds = build_graph(settings, say=say)
    try:
        documents = [document(builds, kind, target) for target in targets]
    except EnvironmentResolutionError:
        # Nothing resolves on a Python that the release does not support, as its source would say if it were there.
        for target in targets if settings.source.origin == "index" else ():
            require_python(settings, release=target.release, python=target.python)
        raise
    return Planned(targets=tuple(targets), documents=tuple(documents))


def write_json(file: Path, planned: Planned) -> None:
    """Writes the plans: a list of documents that follow docs/schemas/plan.schema.json."""
    data: dict[str, Any] = {"schema_version": 2, "plans": [as_json(each) for each in planned.documents]}
    write_atomically(file.absolute(), json.dumps(data, indent=1) + "\n")


def show(planned: Planned, settings: Settings) -> None:
    """Prints what would be made and why, how long it takes, and what it needs of this machine."""
    estimates = planned.estimates()
    for notice in planned.notices():
        say(f"NOTICE: {notice}")
    for target in dict.fromkeys(target.shared() for target in planned.targets):
        mine = [(key, artifact) for key, artifact in planned.artifacts() if key[1].shared() == target]
        say(f"vLLM {target.release} on Python {target.python}:")
        for (kind, why), keys in _grouped(mine).items():
            seconds = sum(estimates[key] for key in keys)
            say(f"  make {_called(kind, keys):<30} {f'~{duration(seconds)}':>8}  {why}")
        if kept := [_called(kind, keys) for (kind, _), keys in _grouped(mine, kept=True).items()]:
            say(f"  in the store: {', '.join(kept)}")
    if not planned.to_be_made():
        say(NOTHING)
        return
    for line in _needs(planned, settings, sum(estimates.values())):
        say(line)


def _grouped(
    artifacts: Iterable[tuple[Key, PlannedArtifact]], *, kept: bool = False
) -> dict[tuple[str, str], list[Key]]:
    """Artifacts of one kind that are made for the same reason, or kept, together."""
    found: dict[tuple[str, str], list[Key]] = {}
    for key, artifact in artifacts:
        if (artifact.estimate is None) == kept:
            guess = " (time is a guess)" if artifact.estimate and not artifact.estimate.past_runs else ""
            found.setdefault((key[0], f"{'; '.join(artifact.reasons)}{guess}"), []).append(key)
    return found


def _called(kind: str, keys: Sequence[Key]) -> str:
    names = [target.variant for _, target in keys if target.variant]
    if not names:
        return kind
    return f"{kind} {'of all variants' if names == list(variants()) else ', '.join(names)}"


def _needs(planned: Planned, settings: Settings, seconds: float) -> Iterator[str]:
    todo = planned.to_be_made()
    needed, disk = totals(artifact for _, artifact in todo), 0.0
    if not settings.builder.keep_build_folder:
        # One after the other, and each removes its build folder.
        folders = [totals([artifact]).disk_gigabytes for (kind, _), artifact in todo if kind == "compiled"]
        disk = max(folders, default=0) - sum(folders)
    disk, memory = disk + needed.disk_gigabytes, needed.memory_gigabytes
    yield f"time about {duration(seconds)}; download {to_download(needed)}"
    free, available = room(settings.state_folder), memory_available()
    short = "; TOO LITTLE for this" if disk > free or memory > available else ""
    yield f"disk {disk:.1f} GB of {free:.1f} GB free; memory {memory:.1f} GB of {available:.1f} GB available{short}"
