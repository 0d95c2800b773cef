"""Hashes of files, and small files written so that no reader, nor a power failure, ever sees a part of one."""

import hashlib
import os
from pathlib import Path

from vllm_wheels.core.errors import MachineError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write_synced(temporary, text)
    temporary.replace(path)


def own_folder(folder: Path) -> None:
    """Makes a folder for what must not end up elsewhere; MachineError where it, or the one above it, is a link."""
    for path in (folder.parent, folder):
        path.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            what = f"{path} is a link to {path.readlink()}"
            raise MachineError(what, why="receipts and journals are not written through links", remedy=f"rm {path}")


def write_synced(path: Path, text: str) -> None:
    """Writes a file and waits until the disk has it."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
