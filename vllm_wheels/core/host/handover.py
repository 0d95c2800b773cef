"""Leaves nothing behind that a user cannot use who ran this once with sudo (sudo(8), "ENVIRONMENT")."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import VllmWheelsError

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
    give((folder for folder in folders if _is_inside_folder_of(int(user), folder)), user=int(user), group=int(group))


def give(folders: Iterable[Path], *, user: int, group: int) -> None:
    """Gives what is root's in folders, and the folders themselves, to a user; links are not followed."""
    for folder in folders:
        for place, _, names in os.walk(folder):
            for path in (place, *(os.path.join(place, name) for name in names)):  # noqa: PTH118 - hundred thousands
                with suppress(FileNotFoundError):
                    if os.lstat(path).st_uid == 0:
                        os.chown(path, user, group, follow_symlinks=False)


def _is_inside_folder_of(user: int, folder: Path) -> bool:
    return any(parent.is_dir() and parent.stat().st_uid == user for parent in folder.parents)
