"""Lets only so many compiles, or test runs, go on at the same time, whichever processes of this machine start them."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from vllm_wheels.core.errors import StoreBusyError

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

LOOK_SECONDS = 0.5

Work = Literal["compile", "trial"]


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock: for what, in which process, and since when, in seconds since the epoch."""

    purpose: str
    pid: int
    machine: str
    since: float

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.since).astimezone().strftime("%H:%M:%S")
        return f"{self.purpose} (process {self.pid} on {self.machine}, since {began})"


def holder(lock: Path) -> Holder | None:
    """Who noted to hold a lock; None where nobody did, or the note is of somebody who let it go."""
    try:
        return Holder(**json.loads(_note(lock).read_text("utf-8")))
    except FileNotFoundError:
        return None


@contextmanager
def noted(lock: Path, purpose: str) -> Iterator[None]:
    """Lets those who wait for a lock that is held read who holds it."""
    mine = Holder(purpose=purpose, pid=os.getpid(), machine=platform.node(), since=time.time())
    # In one rename, for somebody may be reading; without waiting for the disk, for it need not outlive this process.
    draft = lock.with_suffix(f".{mine.pid}")
    draft.write_text(json.dumps(asdict(mine)), "utf-8")
    draft.replace(_note(lock))
    try:
        yield
    finally:
        _note(lock).unlink(missing_ok=True)


@contextmanager
def slot(work: Work, purpose: str, settings: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """A place for one piece of work, held by a lock that dies with the process.

    Of ``builder.side_by_side`` for compiling, and of one for test runs, whose speed is measured. Processes that share
    a state folder share the places. Who has to wait is told so, with who holds them, and again whenever that changes.

    Raises:
        StoreBusyError: no place was free for ``builder.lock_seconds``.
    """
    lock = _first_free(work, settings, say)
    try:
        with noted(Path(lock.lock_file), purpose):
            yield
    finally:
        lock.release()


def _first_free(work: Work, settings: Settings, say: Callable[[str], None]) -> FileLock:
    folder, places = settings.state_folder / "locks", settings.builder.side_by_side if work == "compile" else 1
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{work}-{number}.lock") for number in range(places)]
    began, deadline = datetime.now().astimezone().strftime("%H:%M:%S"), time.monotonic() + settings.builder.lock_seconds
    told: list[str] | None = None
    while True:
        for lock in locks:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            return lock
        holders = [str(found) for lock in locks if (found := holder(Path(lock.lock_file)))]
        if holders != told:
            say(f"waiting since {began} for a place to {work}, of {places}; held by: {'; '.join(holders) or 'others'}")
            told = holders
        if time.monotonic() > deadline:
            what = f"others are still at it: no place to {work} on this machine"
            why = f"none was free within {settings.builder.lock_seconds:.0f} s ({'; '.join(holders)})"
            raise StoreBusyError(what, why=why, remedy="wait for them or stop them, or raise builder.lock_seconds")
        # An interruption ends this, and with it the wait.
        time.sleep(LOOK_SECONDS)


def _note(lock: Path) -> Path:
    return lock.with_suffix(".json")
