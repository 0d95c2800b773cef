"""Where a wheel is unpacked for its verification: in memory where it is small for it, else on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_wheels.core.host import limits
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify import opening
from vllm_wheels_tests.fixtures.broken_wheels import Recipe


@pytest.fixture
def unpacked_in(tmp_path, monkeypatch):
    """The folder in which a wheel is unpacked, where nobody set one and memory is a folder of the test."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(opening, "MEMORY", tmp_path / "memory")
    wheel = Recipe().write(tmp_path)

    def unpack() -> Path:
        with opening.opened(wheel, settings=Settings(), runner=Runner()) as unpacked:
            return unpacked.folder

    return unpack


def test_small_wheel_is_unpacked_in_memory(unpacked_in, tmp_path):
    """Nothing of it is left there."""
    assert unpacked_in().is_relative_to(tmp_path / "memory")
    assert not list((tmp_path / "memory").iterdir())


@pytest.mark.parametrize(
    "lack",
    [
        (opening, "MEMORY", Path("/nonexistent")),
        (opening, "room", lambda _: 0.0),
        (opening, "memory_available", lambda: 0.0),
        (limits, "WHEEL_IN_MEMORY_BYTES", 0),
    ],
    ids=["no such folder", "little room", "little memory", "large wheel"],
)
def test_wheel_that_memory_has_no_room_for_goes_to_disk(unpacked_in, tmp_path, monkeypatch, lack):
    """A small container or a large wheel costs disk, and no memory."""
    monkeypatch.setattr(*lack)
    assert not unpacked_in().is_relative_to(tmp_path / "memory")


def test_folder_that_somebody_set_is_where_it_goes(unpacked_in, tmp_path, monkeypatch):
    """TMPDIR is obeyed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert not unpacked_in().is_relative_to(tmp_path / "memory")
