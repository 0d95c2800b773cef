"""One artifact as one object: a line with its signed manifest, then its files, packed and compressed.

The manifest names the artifact, its record, and the hashes of what follows; the signature covers the manifest as it is
written, so nobody has to agree on how JSON is put. Whoever opens an object believes nothing of it before the signature,
unpacks nothing before the hash of the packed bytes, and keeps nothing before the hash of the unpacked files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.store import RECORD, Artifact
from vllm_wheels.core.errors import UntrustedArtifactError
from vllm_wheels.core.host import archives, limits
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.signing import SigningKey, is_signed

CONTEXT = "vllm-wheels artifact 1\n"
"""Before what is signed, so that a signature of this key for another purpose is none for an artifact."""

LEFT_OUT = frozenset({RECORD})
"""The record is in the manifest."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an object says of the artifact in it, once its signature holds."""

    kind: str
    key: str
    record: Mapping[str, Any]  # as the store of its maker has it
    sha256: str  # of the packed bytes
    size: int  # of them
    tree: str  # hash of the unpacked files
    signer: str  # name of the key


def seal(artifact: Artifact, path: Path, key: SigningKey) -> None:
    """Writes an artifact as an object into a file."""
    packed = path.with_name(f"{path.name}.tar.zst")
    archives.pack(artifact.folder, packed, leave_out=LEFT_OUT)
    manifest = {
        "kind": artifact.kind,
        "key": artifact.key,
        "record": artifact.record,
        "sha256": sha256_of(packed),
        "size": packed.stat().st_size,
        "tree": archives.tree_hash(artifact.folder, ignored=LEFT_OUT),
    }
    text = json.dumps(manifest, sort_keys=True)
    head = {"manifest": text, "signature": key.sign(_signed(text)), "signer": key.name}
    with path.open("wb") as output, packed.open("rb") as stream:
        output.write(json.dumps(head).encode() + b"\n")
        shutil.copyfileobj(stream, output, limits.CHUNK_BYTES)
    packed.unlink()


def unseal(chunks: Iterator[bytes], packed: Path, *, kind: str, key: str, trusted: Mapping[str, str]) -> Manifest:
    """Reads an object, which must be the named artifact, and leaves its packed files at a path.

    Raises:
        UntrustedArtifactError: it is unsigned, altered, signed by nobody who is trusted, or another artifact.
    """
    manifest, rest = opened(chunks, kind=kind, key=key, trusted=trusted)
    digest, size = hashlib.sha256(), 0
    with packed.open("wb") as output:
        for chunk in rest:
            size += len(chunk)
            if size > manifest.size:
                break
            digest.update(chunk)
            output.write(chunk)
    if size != manifest.size or digest.hexdigest() != manifest.sha256:
        raise _refused(kind, key, "its files are not those that were signed")
    return manifest


def opened(
    chunks: Iterator[bytes], *, kind: str, key: str, trusted: Mapping[str, str]
) -> tuple[Manifest, Iterator[bytes]]:
    """The manifest of an object, and the bytes that follow it, which nobody has checked yet; raises as ``unseal``."""
    line, rest = _first_line(chunks)
    manifest = _believed(line, trusted)
    if (manifest.kind, manifest.key) != (kind, key):
        raise _refused(kind, key, f"it is {manifest.kind} {manifest.key[:12]}, under a wrong name")
    return manifest, rest


def unpack(manifest: Manifest, packed: Path, folder: Path) -> None:
    """Unpacks the files of an object into an empty folder.

    Raises:
        UnsafeArchiveError: they cannot be, or must not be.
        UntrustedArtifactError: what comes out is not what was put in.
    """
    archives.unpack(packed, folder)
    if archives.tree_hash(folder, ignored=LEFT_OUT) != manifest.tree:
        raise _refused(manifest.kind, manifest.key, "its unpacked files are not those that were packed")


def _first_line(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    head = b""
    for chunk in chunks:
        head += chunk
        line, found, rest = head.partition(b"\n")
        if found:
            return line, _with_first(rest, chunks)
        if len(head) > limits.MANIFEST_BYTES:
            break
    return b"", iter(())


def _with_first(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from chunks


def _believed(line: bytes, trusted: Mapping[str, str]) -> Manifest:
    what = "an object of a remote store is refused"
    remedy = "if it ought to be there, name its key in store.trusted_keys; else have whoever keeps the store remove it"
    try:
        head = json.loads(line)
        text, signer, signature = (str(head[name]) for name in ("manifest", "signer", "signature"))
    except (ValueError, KeyError, TypeError) as error:
        raise UntrustedArtifactError(what, why="it is unsigned, or no artifact at all", remedy=remedy) from error
    if signer not in trusted:
        raise UntrustedArtifactError(what, why=f"the key {signer!r} that signed it is not trusted", remedy=remedy)
    if not is_signed(_signed(text), signature, trusted[signer]):
        why = f"its signature is not that of the key {signer!r}"
        raise UntrustedArtifactError(what, why=why, remedy=remedy)
    return Manifest(**json.loads(text), signer=signer)


def _signed(text: str) -> bytes:
    return (CONTEXT + text).encode()


def _refused(kind: str, key: str, why: str) -> UntrustedArtifactError:
    what = f"{kind} {key[:12]} of a remote store is refused"
    return UntrustedArtifactError(what, why=why, remedy="have whoever keeps the store remove it; it is made here")
