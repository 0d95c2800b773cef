"""Runs do not wait for the disk after each event, and lose nothing by that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from sqlalchemy import Connection, NullPool, text

from vllm_wheels.defs.sqlite import kept_open


@contextmanager
def connected(database: Path) -> Iterator[Connection]:
    """A connection as Dagster opens it for each event, on an engine that it disposes of afterwards."""
    engine = sqlite_event_log.create_engine(f"sqlite:///{database}", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def write(database: Path) -> None:
    """What Dagster does for an event; the first one sets the log up."""
    with connected(database) as connection:
        connection.execute(text("PRAGMA journal_mode=WAL"))
        connection.execute(text("CREATE TABLE IF NOT EXISTS events (number INTEGER)"))
        connection.execute(text("INSERT INTO events VALUES (1)"))
        connection.commit()


def log(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def test_events_reach_the_database_when_the_run_ends(tmp_path):
    """Between two events the log stays; at the end the database is one whole file."""
    database = tmp_path / "events.db"
    write(database)
    with kept_open():
        for _ in range(2):
            write(database)
            assert log(database).stat().st_size > 0
        with connected(database) as connection:
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
    assert not log(database).exists()
    with sqlite3.connect(database) as reader:
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (3,)


def test_others_see_an_event_at_once(tmp_path):
    """The web UI shows a run's events while it goes on."""
    database = tmp_path / "events.db"
    with kept_open():
        write(database)
        with sqlite3.connect(database) as reader:
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_process_is_as_before_after_a_run(tmp_path):
    """A run that fails leaves no connection and no way of opening them behind."""
    database = tmp_path / "events.db"
    with pytest.raises(ZeroDivisionError), kept_open():
        write(database / str(1 // 0))
    write(database)
    assert not log(database).exists()
