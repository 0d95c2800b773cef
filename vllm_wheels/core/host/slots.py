"""Lets only so many compiles run at the same time, whichever processes of this machine start them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from vllm_wheels.core.errors import StoreBusyError

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

LOOK_SECONDS = 0.5


@contextmanager
def compile_slot(settings: Settings, say: Callable[[str], None]) -> Iterator[None]:
    """One of ``builder.side_by_side`` places for compiling, held by a lock that dies with the process.

    Processes that share a state folder share the places; who has to wait is told so once.

    Raises:
        StoreBusyError: no place was free for ``builder.lock_seconds``.
    """
    lock = _first_free(settings, say)
    try:
        yield
    finally:
        lock.release()


def _first_free(settings: Settings, say: Callable[[str], None]) -> FileLock:
    folder = settings.state_folder / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    places = [FileLock(folder / f"compile-{number}.lock") for number in range(settings.builder.side_by_side)]
    deadline = time.monotonic() + settings.builder.lock_seconds
    told = False
    while True:
        for lock in places:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            return lock
        if not told:
            say(f"waiting until fewer than {len(places)} other compiles run (builder.side_by_side)")
            told = True
        if time.monotonic() > deadline:
            what = "other compiles are still running on this machine"
            why = f"none of them ended within {settings.builder.lock_seconds:.0f} s"
            raise StoreBusyError(what, why=why, remedy="wait for them or stop them, or raise builder.lock_seconds")
        time.sleep(LOOK_SECONDS)
