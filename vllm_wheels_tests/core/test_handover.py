"""What root made in a user's folder becomes the user's; what the system refuses is never called a defect."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from vllm_wheels import cli
from vllm_wheels.core.errors import DiskSpaceError, FolderError
from vllm_wheels.core.host import handover
from vllm_wheels.core.host.system_errors import behind

USER = 4711

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of a user who called sudo, with a state folder that root made there."""
    home = tmp_path / "home"
    (home / "state" / "store").mkdir(parents=True)
    (home / "state" / "store" / "file").touch()
    (home / "state" / "link").symlink_to("/etc/passwd")
    monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(home / "state"))
    monkeypatch.setenv("VLLM_WHEELS_OUTPUT_FOLDER", str(home / "wheels"))
    monkeypatch.setenv("SUDO_UID", str(USER))
    monkeypatch.setenv("SUDO_GID", str(USER))
    return home


def owners(folder):
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


@needs_root
def test_what_root_made_in_a_users_folder_becomes_the_users(home):
    """After sudo ./run build I go on without sudo."""
    os.chown(home, USER, USER)
    handover.hand_over()
    assert owners(home / "state") == {USER}
    assert Path("/etc/passwd").stat().st_uid == 0


@needs_root
def test_roots_own_folder_stays_roots(home):
    """A service's state folder is not given to whoever looked after it."""
    handover.hand_over()
    assert owners(home) == {0}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (sqlite3.SQLITE_READONLY, FolderError),
        (sqlite3.SQLITE_CANTOPEN, FolderError),
        (sqlite3.SQLITE_FULL, DiskSpaceError),
        (sqlite3.SQLITE_CORRUPT, FolderError),
        (sqlite3.SQLITE_NOTADB, FolderError),
        (sqlite3.SQLITE_READONLY | (5 << 8), FolderError),
    ],
)
def test_trouble_of_the_database_is_told_as_what_it_is(monkeypatch, capsys, number, kind):
    """A read-only or full disk is no defect of the program, however many libraries stand between."""

    def fail(**_):
        inner = sqlite3.OperationalError("attempt to write a readonly database")
        inner.sqlite_errorcode = number
        message = "(sqlite3.OperationalError)"
        raise RuntimeError(message) from inner

    monkeypatch.setattr(cli, "cli", fail)
    assert cli.run() == kind.exit_code
    assert "defect" not in capsys.readouterr().err


def test_refusal_of_the_system_below_another_error_is_told():
    """A full disk is a full disk also where a library wraps it."""
    outer = RuntimeError("wrapped")
    outer.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/there")
    assert isinstance(behind(outer), DiskSpaceError)


def test_other_errors_are_still_defects():
    """What nobody refused is ours."""
    assert behind(ValueError("x")) is None
