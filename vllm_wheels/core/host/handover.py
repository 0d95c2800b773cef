"""Leaves nothing behind that a user cannot use who ran this once with sudo (sudo(8), "ENVIRONMENT")."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host.ownership import NOBODY

PACKAGE = Path(__file__).parents[2]


def hand_over() -> None:
    """Gives what root made in a folder of sudo's user to that user; elsewhere, and without sudo, does nothing."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not (user.isdigit() and group.isdigit()) or user == "0":
        return
    try:
        settings = configuration.load()
    except VllmWheelsError:
        # What is wrong with them was said when the command ran.
        return
    # Python keeps its compiled modules beside ours.
    folders = (settings.state_folder, settings.output_folder, PACKAGE)
    give(
        (folder for folder in folders if _is_inside_folder_of(int(user), folder)),
        user=int(user),
        group=int(group),
        of=(0, NOBODY),
    )


def give(folders: Iterable[Path], *, user: int, group: int, of: Collection[int] = (0,)) -> None:
    """Gives what is root's (or ``of`` other users) in folders, and the folders themselves, to a user.

    Links are not followed, nor can somebody who works there meanwhile put one in the way: names are looked up in
    folders that are open.
    """
    for folder in folders:
        if not folder.is_dir():
            continue
        for _, inner, names, place in os.fwalk(folder, follow_symlinks=False):
            for name in (".", *inner, *names):
                with suppress(FileNotFoundError):
                    if os.stat(name, dir_fd=place, follow_symlinks=False).st_uid in of:
                        os.chown(name, user, group, dir_fd=place, follow_symlinks=False)


def _is_inside_folder_of(user: int, folder: Path) -> bool:
    return any(parent.is_dir() and parent.stat().st_uid == user for parent in folder.parents)
