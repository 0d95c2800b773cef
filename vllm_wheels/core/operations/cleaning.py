"""What a state folder may lose, because it can be made again: found first, removed later, never while work goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.publish.receipt import receipts
from vllm_wheels.core.verify.parts import parts_kept

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "build folders": ("build/*", "rebuild/*"),
    "leftovers of killed builds": ("store/staging/*", "staging/*/*", "store/*/.*.removed"),
    "plans of dry runs": ("plans/*",),
}
"""What is always removed, as patterns below the state folder; safe while nobody else works there."""

CACHES: Mapping[str, tuple[str, ...]] = {
    "compiler cache": ("ccache*", "sccache*"),
    "package cache": ("uv-cache",),
    "lists of Debian packages": ("apt/*",),
}
"""What is removed only when asked for: the next build takes longer without it."""


@dataclass(frozen=True, kw_only=True)
class Rubbish:
    """Something that can be removed, with its size in bytes."""

    title: str
    paths: tuple[Path, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    size: int

    @property
    def count(self) -> int:
        """How many folders, files and artifacts."""
        return len(self.paths) + len(self.artifacts)


def rubbish(state_folder: Path, *, keep: int, caches: bool) -> list[Rubbish]:
    """What can be removed from a state folder; only what there is any of.

    The newest releases, by version, keep their artifacts; what a receipt names stays in any case.
    """
    found = [_matching(state_folder, title, patterns) for title, patterns in FOLDERS.items()]
    found += [_matching(state_folder, title, patterns) for title, patterns in CACHES.items() if caches]
    published = {sha256 for receipt in receipts(state_folder) for sha256 in receipt.hashes.values()}
    artifacts = tuple(removable(Store(state_folder / "store"), keep=keep, published=published))
    size = sum(size_of(artifact.folder) for artifact in artifacts)
    found.append(Rubbish(title=f"artifacts of releases older than the newest {keep}", artifacts=artifacts, size=size))
    return [each for each in found if each.count]


def sweep(found: Iterable[Rubbish]) -> int:
    """Removes what was found, and returns how many bytes that freed; the caller holds ``Store.alone``."""
    freed = 0
    for each in found:
        remove(each.artifacts)
        for path in each.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        freed += each.size
    return freed


def size_of(path: Path) -> int:
    """Bytes that a file or a folder takes on the disk; what several names lead to counts once."""
    return sum({(each.st_dev, each.st_ino): each.st_blocks * 512 for each in _stats(path)}.values())


def _stats(path: Path) -> Iterator[os.stat_result]:
    for each in (path, *path.rglob("*")):
        try:
            yield each.lstat()
        except FileNotFoundError:
            # Somebody else's temporary file.
            continue


def _matching(state_folder: Path, title: str, patterns: Iterable[str]) -> Rubbish:
    paths = tuple(path for pattern in patterns for path in sorted(state_folder.glob(pattern)))
    return Rubbish(title=title, paths=paths, size=sum(size_of(path) for path in paths))


def removable(store: Store, *, keep: int, published: Collection[str]) -> list[Artifact]:
    """The artifacts of all but the newest releases, by version.

    An artifact belongs to the releases of the wheels that were made of it; one that no wheel was made of stays, for it
    may be on its way.

    Published wheels, by SHA-256, stay, with all that they were made of and their verifications.
    """
    wheels = {artifact.key: artifact for artifact in store.artifacts("wheel")}
    releases = sorted({str(artifact.made_for["release"]) for artifact in wheels.values()}, key=Version)
    old = set(releases[:-keep] if keep else releases)
    staying = [
        artifact
        for artifact in wheels.values()
        if artifact.made_for["release"] not in old or artifact.facts["sha256"] in published
    ]
    kept = {(artifact.kind, artifact.key) for artifact in _artifacts(store, staying)}
    going = [artifact for artifact in wheels.values() if artifact.key not in {each.key for each in staying}]
    found = {(artifact.kind, artifact.key): artifact for artifact in _artifacts(store, going)}
    return [artifact for key, artifact in found.items() if key not in kept]


def remove(artifacts: Iterable[Artifact]) -> int:
    """Removes artifacts from the disk and returns how many bytes that freed."""
    freed = 0
    for artifact in artifacts:
        freed += sum(path.stat().st_size for path in artifact.folder.rglob("*") if path.is_file())
        # Out of sight in one rename, so that nobody finds half an artifact.
        gone = artifact.folder.with_name(f".{artifact.folder.name}.removed")
        artifact.folder.rename(gone)
        shutil.rmtree(gone)
    return freed


def _artifacts(store: Store, wheels: Iterable[Artifact]) -> Iterator[Artifact]:
    wheels = list(wheels)
    hashes = {wheel.facts["sha256"] for wheel in wheels}
    for wheel in wheels:
        yield wheel
        for kind, key in wheel.made_from.items():
            if artifact := store.find(kind, key):
                yield artifact
    for verification in store.artifacts("verification"):
        if verification.facts["sha256"] in hashes:
            yield verification
    for part in parts_kept(store):
        if part.details["wheel"] in hashes:
            yield part
