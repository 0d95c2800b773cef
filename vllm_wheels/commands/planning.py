"""Shows the plans of several wheels in a table, or as JSON; shared by ``plan`` and ``build``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.commands.options import print_json, say
from vllm_wheels.core.engine.rendering import as_json, duration, to_download, totals
from vllm_wheels.core.host.machine import memory_available, room
from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from vllm_wheels.core.engine.rendering import PlannedArtifact
    from vllm_wheels.core.operations.preflight import Planned
    from vllm_wheels.core.operations.progress import Key
    from vllm_wheels.core.settings import Settings

NOTHING = "nothing to do: the store has every artifact"


def write_json(file: Path, planned: Planned) -> None:
    """Writes the plans: a list of documents that follow docs/schemas/plan.schema.json."""
    data: dict[str, Any] = {"schema_version": 2, "plans": [as_json(each) for each in planned.documents]}
    print_json(file, data)


def show(planned: Planned, settings: Settings, *, say: Callable[[str], None] = say) -> None:
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
    disk, memory = planned.disk_gigabytes(settings), planned.memory_gigabytes()
    needed = totals(artifact for _, artifact in planned.to_be_made())
    yield f"time about {duration(seconds)}; download {to_download(needed)}"
    free, available = room(settings.state_folder), memory_available()
    yield f"disk {disk:.1f} GB of {free:.1f} GB free; memory {memory:.1f} GB of {available:.1f} GB available"
