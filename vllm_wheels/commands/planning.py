"""Draws up the plans of several wheels and shows them in a table; shared by ``plan`` and ``build``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.commands.options import say
from vllm_wheels.core.errors import EnvironmentResolutionError
from vllm_wheels.core.machine import memory_available, room
from vllm_wheels.core.releases import require_python
from vllm_wheels.core.rendering import Document, as_json, document, duration
from vllm_wheels.core.store import write_atomically
from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from vllm_wheels.core.progress import Key
    from vllm_wheels.core.rendering import PlannedPiece
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

SHARED_SHARE = 0.25
"""Part of a first guess that a release's second variant takes: oneDNN, two thirds of a build, comes from the compiler's
cache (measured: 0.32.0 on two cores, 1323 s for the first variant and 230 to 335 s for each other one)."""

NOTHING = "nothing to do: the store has every piece"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The plans of several wheels.

    Attributes:
        targets: the wheels.
        documents: their plans, in the same order.
    """

    targets: tuple[Target, ...]
    documents: tuple[Document, ...]

    def pieces(self) -> Iterator[tuple[Key, PlannedPiece]]:
        """Every piece once, also where several wheels are made from it."""
        from vllm_wheels.core.workshop import PER_VARIANT  # noqa: PLC0415 - as in ``draw_up``

        seen = set()
        for target, shown in zip(self.targets, self.documents, strict=True):
            for piece in shown.pieces:
                key = piece.piece, target if piece.piece in PER_VARIANT else target.shared()
                if key not in seen:
                    seen.add(key)
                    yield key, piece

    def to_be_made(self) -> list[tuple[Key, PlannedPiece]]:
        """The pieces that the store does not have."""
        return [(key, piece) for key, piece in self.pieces() if piece.estimate]

    def notices(self) -> list[str]:
        """What the user must be told, each line once."""
        return list(dict.fromkeys(notice for _, piece in self.pieces() for notice in piece.notices))

    def estimates(self) -> dict[Key, float]:
        """Seconds by piece; 0 for what the store has."""
        found: dict[Key, float] = {}
        guessed = set()
        for (kind, target), piece in self.pieces():
            seconds = piece.estimate.seconds if piece.estimate else 0.0
            if kind == "compiled" and piece.estimate and not piece.estimate.past_runs:
                share = SHARED_SHARE if target.release in guessed else 1.0
                guessed.add(target.release)
                seconds *= share
            found[kind, target] = seconds
        return found


def draw_up(settings: Settings, targets: Sequence[Target], kind: str) -> Planned:
    """The plans of wheels, up to and with one kind of piece.

    Raises:
        VllmWheelsError: a server, the builder or a setting does not let a plan be drawn up.
    """
    # Help and wrong options are answered before everything that making a piece needs is loaded.
    from vllm_wheels.core.workshop import Workshop  # noqa: PLC0415

    workshop = Workshop(settings=settings, say=say)
    try:
        documents = [document(target, workshop.plans(kind, target), workshop.store) for target in targets]
    except EnvironmentResolutionError:
        # Nothing resolves on a Python that the release does not support, as its source would say if it were there.
        for target in targets if settings.source.origin == "index" else ():
            require_python(settings, release=target.release, python=target.python)
        raise
    return Planned(targets=tuple(targets), documents=tuple(documents))


def wheels(releases: Iterable[Target], names: Iterable[str]) -> list[Target]:
    """One target per release, Python and variant."""
    chosen = list(names)
    return [replace(target, variant=name) for target in releases for name in chosen]


def write_json(file: Path, planned: Planned) -> None:
    """Writes the plans: a list of documents that follow docs/schemas/plan.schema.json."""
    data: dict[str, Any] = {"schema_version": 1, "plans": [as_json(each) for each in planned.documents]}
    write_atomically(file.absolute(), json.dumps(data, indent=1) + "\n")


def show(planned: Planned, settings: Settings) -> None:
    """Prints what would be made and why, how long it takes, and what it needs of this machine."""
    estimates = planned.estimates()
    for notice in planned.notices():
        say(f"NOTICE: {notice}")
    for target in dict.fromkeys(target.shared() for target in planned.targets):
        mine = [(key, piece) for key, piece in planned.pieces() if key[1].shared() == target]
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


def _grouped(pieces: Iterable[tuple[Key, PlannedPiece]], *, kept: bool = False) -> dict[tuple[str, str], list[Key]]:
    """Pieces of one kind that are made for the same reason, or kept, together."""
    found: dict[tuple[str, str], list[Key]] = {}
    for key, piece in pieces:
        if (piece.estimate is None) == kept:
            guess = " (time is a guess)" if piece.estimate and not piece.estimate.past_runs else ""
            found.setdefault((key[0], f"{'; '.join(piece.reasons)}{guess}"), []).append(key)
    return found


def _called(kind: str, keys: Sequence[Key]) -> str:
    names = [target.variant for _, target in keys if target.variant]
    if not names:
        return kind
    return f"{kind} {'of all variants' if names == list(variants()) else ', '.join(names)}"


def _needs(planned: Planned, settings: Settings, seconds: float) -> Iterator[str]:
    todo = planned.to_be_made()
    steps = [step for _, piece in todo for step in piece.steps]
    downloads = [download for step in steps for download in step.downloads]
    known = sum(download.size or 0 for download in downloads) / 1e6
    unknown = sum(download.size is None for download in downloads)
    disk = sum(_disk(piece) for (kind, _), piece in todo if kind != "compiled")
    # One after the other, and each removes its build folder, unless that is to be kept.
    folders = [_disk(piece) for (kind, _), piece in todo if kind == "compiled"]
    disk += sum(folders) if settings.builder.keep_build_folder else max(folders, default=0)
    memory = max((step.gigabytes or 0 for step in steps), default=0)
    more = f" and {unknown} files of unknown size" if unknown else ""
    yield f"time about {duration(seconds)}; download {known:.1f} MB{more}"
    free, available = room(settings.state_folder), memory_available()
    short = "; TOO LITTLE for this" if disk > free or memory > available else ""
    yield f"disk {disk:.1f} GB of {free:.1f} GB free; memory {memory:.1f} GB of {available:.1f} GB available{short}"


def _disk(piece: PlannedPiece) -> float:
    return sum(step.disk_gigabytes or 0 for step in piece.steps)
