"""Turns what the operating system refuses into errors of the tree."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from vllm_wheels.core.errors import DiskSpaceError, FolderError, VllmWheelsError

FULL = "free some room (vllm-wheels clean), or point state_folder and output_folder at a larger disk"

KNOWN: Mapping[int, tuple[type[VllmWheelsError], str, str]] = {
    errno.ENOSPC: (DiskSpaceError, "the disk of {path} is full", FULL),
    errno.EDQUOT: (DiskSpaceError, "the disk quota of {path} is used up", FULL),
    errno.EACCES: (FolderError, "{path} cannot be used", "give this user the right (ls -ld shows who has it)"),
    errno.EPERM: (FolderError, "{path} cannot be changed", "give this user the right (ls -ld shows who has it)"),
    errno.EROFS: (FolderError, "{path} cannot be written", "name a folder on a disk that can be written"),
    errno.ENOENT: (FolderError, "{path} does not exist", "name a file or folder that exists"),
    errno.ENOTDIR: (FolderError, "{path} cannot be used", "one of the folders in that path is a file: name another"),
    errno.EISDIR: (FolderError, "{path} is a folder", "name a file"),
    errno.EEXIST: (FolderError, "{path} is in the way", "remove it, or name another path"),
    errno.ENAMETOOLONG: (FolderError, "the path is too long: {path}", "name a shorter one"),
    errno.EMFILE: (FolderError, "too many files are open", "raise the limit: ulimit -n 4096"),
}
"""Error number to kind, what happened, and what to do."""

OTHERWISE = (FolderError, "{path} cannot be used", "see what the reason says about that path")


def of_system(error: OSError, *, path: Path | None = None) -> VllmWheelsError:
    """The error of the tree for one of the operating system.

    The path is for an error that does not know what it is about.
    """
    place = path or error.filename or "an open file"
    kind, what, remedy = KNOWN.get(error.errno or 0, OTHERWISE)
    why = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
    return kind(what.format(path=place), why=why, remedy=remedy)
