"""What the store may forget: all of old releases, but never what a receipt names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from packaging.version import Version

from vllm_wheels.core.store import Piece, Store


def removable(store: Store, *, keep: int, published: Collection[str]) -> list[Piece]:
    """The pieces of all but the newest releases.

    A piece belongs to the releases of the wheels that were made of it; one that no wheel was made of is left alone, for
    it may be on its way.

    Args:
        store: searched.
        keep: how many releases to keep, the newest by version.
        published: SHA-256 of the files that receipts name; a wheel among them stays, with all that it was made of and
            its verifications.
    """
    wheels = {piece.fingerprint: piece for piece in store.pieces("wheel")}
    releases = sorted({_statement(piece)["release"] for piece in wheels.values()}, key=Version)
    old = set(releases[:-keep] if keep else releases)
    staying = [
        piece
        for piece in wheels.values()
        if _statement(piece)["release"] not in old or piece.facts["sha256"] in published
    ]
    kept = set(_made_of(store, staying))
    going = [piece for piece in wheels.values() if piece.fingerprint not in {each.fingerprint for each in staying}]
    found = {(piece.kind, piece.fingerprint): piece for piece in _pieces(store, going)}
    return [piece for key, piece in found.items() if key not in kept]


def remove(pieces: Iterable[Piece]) -> int:
    """Removes pieces from the disk and returns how many bytes that freed."""
    freed = 0
    for piece in pieces:
        freed += sum(path.stat().st_size for path in piece.folder.rglob("*") if path.is_file())
        # Out of sight in one rename, so that nobody finds half a piece.
        gone = piece.folder.with_name(f".{piece.folder.name}.removed")
        piece.folder.rename(gone)
        shutil.rmtree(gone)
    return freed


def _statement(wheel: Piece) -> dict[str, str]:
    found: dict[str, str] = json.loads(Path(wheel.folder, "provenance.json").read_text("utf-8"))
    return found


def _made_of(store: Store, wheels: Iterable[Piece]) -> Iterator[tuple[str, str]]:
    for piece in _pieces(store, wheels):
        yield piece.kind, piece.fingerprint


def _pieces(store: Store, wheels: Iterable[Piece]) -> Iterator[Piece]:
    wheels = list(wheels)
    hashes = {wheel.facts["sha256"] for wheel in wheels}
    for wheel in wheels:
        yield wheel
        named: dict[str, str] = json.loads(Path(wheel.folder, "provenance.json").read_text("utf-8"))["pieces"]
        for kind, fingerprint in named.items():
            if piece := store.find(kind, fingerprint):
                yield piece
    for verification in store.pieces("verification"):
        if verification.inputs.get("wheel") in hashes:
            yield verification
