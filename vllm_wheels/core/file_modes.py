"""Tells who besides this user may change a file that is obeyed."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def others_who_write(path: Path) -> str | None:
    """Why a file may say what others want, in words; None where only this user and root can write it, or there is none.

    The user who called root by sudo counts as root.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_uid not in {0, os.geteuid(), int(os.environ.get("SUDO_UID") or 0)}:
        return f"user {found.st_uid} owns it"
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_private(found.st_gid)):
        return f"others may write it (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def _is_private(group: int) -> bool:
    """Whether a group is a user's own, as many distributions have one for each, with umask 002."""
    try:
        members = {*grp.getgrgid(group).gr_mem, *(each.pw_name for each in pwd.getpwall() if each.pw_gid == group)}
        return members <= {pwd.getpwuid(os.geteuid()).pw_name}
    except KeyError:
        return False
