"""What the store may forget: all of old releases, but never what a receipt names."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator

from packaging.version import Version

from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.verify.parts import parts_kept


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
    kept = set(_made_of(store, staying))
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


def _made_of(store: Store, wheels: Iterable[Artifact]) -> Iterator[tuple[str, str]]:
    for artifact in _artifacts(store, wheels):
        yield artifact.kind, artifact.key


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
