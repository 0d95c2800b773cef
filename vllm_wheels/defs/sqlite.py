"""SQLite as Dagster's runs use it, without waiting for the disk after each of a run's hundreds of events.

Dagster opens a connection for each event and closes it again. Each commit then waits for the disk, and each closing
once more, for the last connection to close copies the write-ahead log into the database
(https://www.sqlite.org/wal.html, "Checkpointing").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine, event

READ = "SELECT count(*) FROM sqlite_master"


@dataclass(eq=False)
class _Keeper:
    """Keeps one connection to each database open, so that closing another one never writes a checkpoint."""

    kept: dict[str, sqlite3.Connection] = field(default_factory=dict)

    def __call__(self, connection: object, _record: object) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        connection.execute("PRAGMA synchronous=NORMAL")
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        if not path:
            # A database in memory.
            return
        if path not in self.kept:
            self.kept[path] = sqlite3.connect(path, check_same_thread=False)
        # Only who has read since the log came into being counts as connected to it.
        self.kept[path].execute(READ).fetchone()

    def close(self) -> None:
        for connection in self.kept.values():
            connection.close()


@contextmanager
def kept_open() -> Iterator[None]:
    """Has all databases of this process written to disk once, at the end.

    Whatever becomes of the process, nothing is lost; a power cut may cost the last events, never the database
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """
    keeper = _Keeper()
    event.listen(Engine, "connect", keeper)
    try:
        yield
    finally:
        event.remove(Engine, "connect", keeper)
        keeper.close()
