"""Turns what the operating system refuses into errors of the tree."""

import errno
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from vllm_wheels.core.errors import DiskSpaceError, FolderError, VllmWheelsError

FULL = "free some room (vllm-wheels clean), or point state_folder and output_folder at a larger disk"

OWNER = "give this user the right (ls -ld shows who has it; if it was made with sudo: sudo chown -R $USER {path})"

KNOWN: Mapping[int, tuple[type[VllmWheelsError], str, str]] = {
    errno.ENOSPC: (DiskSpaceError, "the disk of {path} is full", FULL),
    errno.EDQUOT: (DiskSpaceError, "the disk quota of {path} is used up", FULL),
    errno.EACCES: (FolderError, "{path} cannot be used", OWNER),
    errno.EPERM: (FolderError, "{path} cannot be changed", OWNER),
    errno.EROFS: (FolderError, "{path} cannot be written", "name a folder on a disk that can be written"),
    errno.ENOENT: (FolderError, "{path} does not exist", "name a file or folder that exists"),
    errno.ENOTDIR: (FolderError, "{path} cannot be used", "one of the folders in that path is a file: name another"),
    errno.EISDIR: (FolderError, "{path} is a folder", "name a file"),
    errno.EEXIST: (FolderError, "{path} is in the way", "remove it, or name another path"),
    errno.ENAMETOOLONG: (FolderError, "the path is too long: {path}", "name a shorter one"),
    errno.EUCLEAN: (
        FolderError,
        "{path} is damaged",
        "move its folder dagster away: the history of runs is lost, and no artifact",
    ),
    errno.EMFILE: (FolderError, "too many files are open", "raise the limit: ulimit -n 4096"),
}
"""Error number to kind, what happened, and what to do."""

DATABASE = Path("Dagster's database in state_folder")
"""How a person finds what SQLite does not name."""

BY_SQLITE: Mapping[int, int] = {
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CORRUPT: errno.EUCLEAN,
    sqlite3.SQLITE_NOTADB: errno.EUCLEAN,
}
"""SQLite's primary result codes (https://www.sqlite.org/rescode.html) by what the system had refused."""

OTHERWISE = (FolderError, "{path} cannot be used", "see what the reason says about that path")


def behind(error: BaseException) -> VllmWheelsError | None:
    """The error of the tree for what the operating system refused somewhere below an error; None for another cause.

    SQLite and SQLAlchemy, which Dagster's database goes through, tell of full and read-only disks in their own way.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno:
            return of_system(found)
        if isinstance(found, sqlite3.Error) and (number := BY_SQLITE.get(_primary(found))):
            return of_system(OSError(number, os.strerror(number)), path=DATABASE)
        found = found.__cause__
    return None


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def of_system(error: OSError, *, path: Path | None = None) -> VllmWheelsError:
    """The error of the tree for one of the operating system.

    The path is for an error that does not know what it is about.
    """
    place = path or error.filename or "an open file"
    kind, what, remedy = KNOWN.get(error.errno or 0, OTHERWISE)
    why = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
    return kind(what.format(path=place), why=why, remedy=remedy.format(path=place))
