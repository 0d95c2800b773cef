"""Decides whether a build can begin, for a plan and for a build alike: what the one refuses, the other does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_wheels.core.artifacts.patched.planning import wanted_for
from vllm_wheels.core.artifacts.source.planning import facts_of, require_python
from vllm_wheels.core.engine.rendering import Document, PlannedArtifact, document, totals
from vllm_wheels.core.host.machine import require_memory, require_room, require_writable
from vllm_wheels.core.index import releases
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.variants import variant

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.operations.progress import Key
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

SHARED_SHARE = 0.25
"""Part of a first guess that a release's second variant takes: oneDNN, two thirds of a build, comes from the compiler's
cache (measured: 0.32.0 on two cores, 1323 s for the first variant and 230 to 335 s for each other one)."""


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

    def assumed_misses(self) -> dict[Key, float]:
        """Part of the files that the compiler's cache lacks, by compile, as the estimates have it."""
        found: dict[Key, float] = {}
        for key, artifact in self.artifacts():
            if key[0] == "compiled" and artifact.estimate:
                guess = SHARED_SHARE if found else 1.0
                found[key] = guess if artifact.estimate.misses is None else artifact.estimate.misses
        return found

    def disk_gigabytes(self, settings: Settings) -> float:
        """Disk that making all of it takes: one compile after the other, each of which removes its build folder."""
        todo = self.to_be_made()
        disk = totals(artifact for _, artifact in todo).disk_gigabytes
        if settings.builder.keep_build_folder:
            return disk
        folders = [totals([artifact]).disk_gigabytes for (kind, _), artifact in todo if kind == "compiled"]
        return disk + max(folders, default=0) - sum(folders)

    def memory_gigabytes(self) -> float:
        """Memory that making it takes at the most."""
        return totals(artifact for _, artifact in self.to_be_made()).memory_gigabytes


def draw_up(
    settings: Settings, targets: Sequence[Target], kind: str, *, say: Callable[[str], None], set_up: bool = False
) -> Planned:
    """The plans of wheels, up to and with one kind of artifact, if nothing stands in their way.

    The releases' sources are fetched where the store lacks them, for they tell what a build needs. With ``set_up`` what
    this machine lacks is taken for there.

    Raises:
        VllmWheelsError: the build would be refused: a folder cannot be written, there is no such release, it does not
            support the Python or the variant, a server or the builder is out of reach, disk or memory are too little.
    """
    builds = build_graph(settings, say=say, set_up=set_up)
    require_writable(settings.state_folder, setting="state_folder")
    require_writable(settings.output_folder, setting="output_folder")
    for target in targets:
        _require_variant(builds, target)
        builds.ask_at_once(kind, target)
    planned = Planned(targets=tuple(targets), documents=tuple(document(builds, kind, target) for target in targets))
    if any(kind == "compiled" for (kind, _), _ in planned.to_be_made()):
        for python in dict.fromkeys(target.python for target in targets):
            if builder := builds.ready_builder():
                builder.python(python)
        require_room(settings.state_folder, planned.disk_gigabytes(settings))
        require_memory(planned.memory_gigabytes())
    return planned


def _require_variant(builds: BuildGraph, target: Target) -> None:
    """The release is there, and supports the Python and the variant."""
    shared = target.shared()
    if not any(found for _, found in builds.plans("source", shared)):
        if builds.settings.source.origin == "index":
            releases.require_python(builds.settings, release=target.release, python=target.python)
        builds.say(f"fetching the source of vLLM {target.release}, which tells what building it takes")
    source = builds.ensure("source", shared)
    upstream = facts_of(source)
    require_python(upstream, target)
    if any(found and plan.artifact == "patched" for plan, found in builds.plans("patched", target)):
        return  # The patches of this code took on this tree when it was made.
    tree = source.folder / "tree"
    patched(tree, wanted_for(tree, upstream, variant(str(target.variant)), builds.settings))
