"""SQLite as Dagster's runs use it, without connecting and waiting for the disk for each of a run's hundreds of events.

Dagster makes an engine of SQLAlchemy for each event and throws it away with its connection. Each statement is then
compiled anew, each commit waits for the disk, and each closing once more, for the last connection to close copies the
write-ahead log into the database (https://www.sqlite.org/wal.html, "Checkpointing").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, cast

from sqlalchemy import Engine, QueuePool, create_engine, event

from vllm_wheels.defs import internals


class _Kept(QueuePool):
    """Keeps its connections open when Dagster disposes of the engine, which it does after each event."""

    def dispose(self) -> None:
        """Does nothing: an engine is closed when the run ends."""

    def recreate(self) -> _Kept:
        """The same, which an engine that was disposed of goes on with."""
        return self

    def close(self) -> None:
        """Closes the connections."""
        super().dispose()


@dataclass(frozen=True)
class _Engines:
    """One engine for each database, which keeps its connections open."""

    known: dict[str, Engine] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def engine(self, url: str, **options: Any) -> Engine:
        with self.lock:
            if url not in self.known:
                self.known[url] = create_engine(url, **{**options, "poolclass": _Kept})
                event.listen(self.known[url], "connect", _without_waiting)
            return self.known[url]

    def close(self) -> None:
        for engine in self.known.values():
            cast("_Kept", engine.pool).close()


def _without_waiting(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def kept_open() -> Iterator[None]:
    """Has all databases of Dagster in this process written to disk once, at the end.

    Whatever becomes of the process, nothing is lost; a power cut may cost the last events, never the database
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    engines = _Engines()
    try:
        with internals.engines_from(engines.engine):
            yield
    finally:
        engines.close()
