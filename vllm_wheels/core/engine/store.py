"""Keeps finished artifacts on disk, each in a folder named by the key of its inputs.

An artifact is made in a staging folder on the same file system and moved into place in one rename, so that what can be
found is always whole, whatever was killed when. Folders are never changed after that.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from vllm_wheels.core.engine.plan import digest
from vllm_wheels.core.errors import StoreBusyError
from vllm_wheels.core.host.archives import fingerprint, is_outline
from vllm_wheels.core.host.files import write_atomically, write_synced
from vllm_wheels.core.host.slots import holder, noted

if TYPE_CHECKING:
    from vllm_wheels.core.engine.plan import Made, Plan

RECORD = "artifact.json"
PLACE = frozenset({"kind", "key", "folder"})
"""Of an artifact: what its place in a store tells."""

GATE = "work.lock"
UNCOUNTED = frozenset({RECORD, "__pycache__"})
"""Names in an artifact's folder that are none of its files: its record, and what Python leaves where it runs."""

LAYOUT, OLD_RECORD = "layout", "piece.json"
"""File that names the layout of the store's records, and the record of the layout before there were names."""

CURRENT_LAYOUT = "2"
POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A finished artifact.

    Attributes:
        made_for: the target's ``release``, ``python`` and ``variant``; the last is None for what all variants share.
        made_from: key of every artifact that led to it, by kind.
        inputs: what determined it from outside, by name.
        needs: version of each artifact that it was made from.
        code: hash of our own code that made it.
        outside: hash of what determined it from outside; see ``Plan.outside``.
        facts: what later artifacts depend on, plain JSON.
        details: what is only recorded.
        files: fingerprint of its files; empty in records of before there were any.
    """

    kind: str
    key: str
    folder: Path
    made_for: Mapping[str, str | None]
    made_from: Mapping[str, str]
    inputs: Mapping[str, Any]
    needs: Mapping[str, str]
    code: str
    outside: str
    facts: Mapping[str, Any]
    details: Mapping[str, Any]
    made_at: float
    seconds: float
    files: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether its files are there as they were taken: with their bytes, or, where they are many, their sizes."""
        return self.files in {"", fingerprint(self.folder, ignored=UNCOUNTED)}

    @property
    def version(self) -> str:
        """What later artifacts depend on: the same for the same content, whenever and wherever it was made."""
        return digest({"artifact": self.kind, "facts": self.facts})

    @property
    def record(self) -> dict[str, Any]:
        """What is written down of it, beside its kind, key and place."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in PLACE}


@dataclass(frozen=True)
class Store:
    """Finished artifacts below ``root``; safe for several processes at once."""

    root: Path

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact of that key; None where there is none, or its record cannot be read."""
        folder = self._folder(kind, key)
        try:
            record = json.loads((folder / RECORD).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return Artifact(kind=kind, key=key, folder=folder, **record)

    def artifacts(self, kind: str) -> Iterator[Artifact]:
        """All artifacts of a kind, the newest first."""
        folders = (self.root / kind).glob(f"*/{RECORD}")
        found = [artifact for path in folders if (artifact := self.find(kind, path.parent.name))]
        yield from sorted(found, key=lambda artifact: -artifact.made_at)

    def find_whole(self, kind: str, key: str) -> Artifact | None:
        """The artifact of that key; None also where its files were damaged or lost since it was made.

        Of large trees, whose files are not all read each time, whoever makes something from one asks ``is_whole``.
        """
        found = self.find(kind, key)
        return found if found and (is_outline(found.files) or found.is_whole) else None

    @contextmanager
    def making(
        self,
        kind: str,
        key: str,
        *,
        wait_seconds: float,
        purpose: str = "",
        say: Callable[[str], None] | None = None,
    ) -> Iterator[Path]:
        """A staging folder for the artifact, under a lock that dies with the process.

        Whatever an earlier, killed process left in staging for the same artifact is removed.

        ``say`` is told before a wait for another process begins, and who that is: it noted its ``purpose``.

        Raises:
            StoreBusyError: another process held the lock for ``wait_seconds``.
        """
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        stage = self.root / "staging" / f"{kind}-{key}"
        lock = FileLock(locks / f"{kind}-{key}.lock")
        try:
            waiting = partial(_tell_of_wait, Path(lock.lock_file), kind, say)
            with _acquired(lock, wait_seconds, waiting), noted(Path(lock.lock_file), purpose or kind):
                shutil.rmtree(stage, ignore_errors=True)
                stage.mkdir(parents=True)
                try:
                    yield stage
                finally:
                    shutil.rmtree(stage, ignore_errors=True)
        except Timeout as error:
            what = f"another process is still making {kind} {key[:12]}"
            why = f"its lock was not free within {wait_seconds:.0f} s"
            raise StoreBusyError(what, why=why, remedy="wait for it or stop it, then run the command again") from error

    @contextmanager
    def in_use(self, *, wait_seconds: float) -> Iterator[None]:
        """Keeps ``alone`` away while artifacts are made or read; any number of processes may be here at once.

        Raises:
            StoreBusyError: another process went on clearing it for ``wait_seconds``.
        """
        with self._gate(fcntl.LOCK_SH, wait_seconds):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps every other process from making or reading artifacts, so that some may be removed.

        Raises:
            StoreBusyError: another process is at it.
        """
        with self._gate(fcntl.LOCK_EX, 0):
            yield

    @contextmanager
    def _gate(self, mode: int, wait_seconds: float) -> Iterator[None]:
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_seconds
        with (locks / GATE).open("a") as gate:
            while not _locked(gate.fileno(), mode):
                if time.monotonic() >= deadline:
                    what = f"another process works in {self.root.parent}"
                    why = "artifacts are not made and removed at the same time"
                    raise StoreBusyError(what, why=why, remedy="wait for it or stop it, then run the command again")
                time.sleep(POLL_SECONDS)
            yield

    def keep(self, plan: Plan, stage: Path, made: Made, *, made_from: Mapping[str, str], seconds: float) -> Artifact:
        """Takes a staging folder as the finished artifact of a plan: writes its record, syncs, renames."""
        target = plan.target
        record = {
            "made_for": {"release": target.release, "python": target.python, "variant": target.variant},
            "made_from": made_from,
            "inputs": plan.inputs,
            "needs": plan.needs,
            "code": plan.code,
            "outside": plan.outside,
            "facts": made.facts,
            "details": made.details,
            "made_at": time.time(),
            "seconds": seconds,
        }
        return self.take(stage, plan.artifact, str(plan.key), record)

    def take(self, stage: Path, kind: str, key: str, record: Mapping[str, Any]) -> Artifact:
        """Takes a staging folder as a finished artifact, with the record that it has, here or elsewhere."""
        kept = {**record, "files": fingerprint(stage, ignored=UNCOUNTED)}
        write_synced(stage / RECORD, json.dumps(kept, indent=1, sort_keys=True))
        folder = self._folder(kind, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sync_tree(stage)
        shutil.rmtree(folder, ignore_errors=True)
        stage.rename(folder)
        _sync(folder.parent)
        artifact = self.find(kind, key)
        assert artifact is not None  # noqa: S101 - it was renamed into place one line above
        return artifact

    def empty_older(self, say: Callable[[str], None]) -> None:
        """Removes what an earlier version of vllm-wheels left in a layout that this one does not read, and says so.

        Raises:
            StoreBusyError: another process works in the store.
        """
        mark = self.root / LAYOUT
        if mark.is_file() and mark.read_text("utf-8") == CURRENT_LAYOUT:
            return
        if old := {path.parent.parent for path in self.root.glob(f"*/*/{OLD_RECORD}")}:
            with self.alone():
                say(f"NOTICE: the store in {self.root} is of an earlier version of vllm-wheels, and is emptied")
                for folder in old:
                    shutil.rmtree(folder)
        write_atomically(mark, CURRENT_LAYOUT)

    def _folder(self, kind: str, key: str) -> Path:
        return self.root / kind / key


def _locked(descriptor: int, mode: int) -> bool:
    # The lock goes with the descriptor, so it dies with the process; filelock knows no shared locks.
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tell_of_wait(lock: Path, kind: str, say: Callable[[str], None] | None) -> None:
    if say:
        began = datetime.now().astimezone().strftime("%H:%M:%S")
        who = holder(lock) or "one that does not say which"
        say(f"waiting since {began} for another process that makes this {kind}: {who}")


def _acquired(lock: FileLock, wait_seconds: float, on_wait: Callable[[], object]) -> AbstractContextManager[object]:
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        return lock.acquire(timeout=wait_seconds)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    # One syncfs-like call is not in the standard library; sync() costs less than an fsync per file of a source tree.
    os.sync()
    _sync(folder)
