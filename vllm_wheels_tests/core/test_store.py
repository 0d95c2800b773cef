"""The store: what can be found in it is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from vllm_wheels.core.engine.store import RECORD, Artifact, Store
from vllm_wheels.core.errors import StoreBusyError
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.host.limits import READ_AGAIN_FILES
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core import making
from vllm_wheels_tests.fixtures.building import PYTHON

HOLD = """
import sys, time
from pathlib import Path
from vllm_wheels.core.engine.store import Store
with Store(Path(sys.argv[1])).making("wheel", "f1", wait_seconds=1) as stage:
    (stage / "half").write_text("half")
    print("holding", flush=True)
    time.sleep(60)
"""


def keep(store: Store, key: str = "f1", text: str = "whole") -> Artifact:
    given = {"inputs": {"a": 1}, "facts": {"b": 2}, "details": {"c": 3}, "made_from": {"source": "s1"}}
    return making.keep(store, "wheel", key, files={"file": text}, seconds=3.0, **given)


def test_kept_artifact_is_found_again_with_its_facts(tmp_path):
    """What was made once is found by the key of its inputs."""
    keep(Store(tmp_path))
    artifact = Store(tmp_path).find("wheel", "f1")
    assert artifact is not None
    assert (artifact.folder / "file").read_text() == "whole"
    assert (artifact.inputs, artifact.facts, artifact.details) == ({"a": 1}, {"b": 2}, {"c": 3})
    assert (artifact.made_from, artifact.seconds) == ({"source": "s1"}, 3.0)
    assert artifact.made_for == {"release": "0.32.0", "python": "3.11", "variant": "avx512"}


def test_unknown_key_is_not_found(tmp_path):
    """An artifact that nobody made is None, not an error."""
    assert Store(tmp_path).find("wheel", "f1") is None


def test_failure_while_making_leaves_nothing(tmp_path):
    """A step that fails leaves neither an artifact nor its half-written files."""
    store = Store(tmp_path)
    with suppress(ZeroDivisionError), store.making("wheel", "f1", wait_seconds=1) as stage:
        (stage / "half").write_text("half")
        raise ZeroDivisionError
    assert store.find("wheel", "f1") is None
    assert list((tmp_path / "staging").iterdir()) == []


def test_what_a_killed_process_left_is_cleared_and_its_lock_is_free(tmp_path):
    """After kill -9 of the maker, the next one starts afresh at once."""
    arguments = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        process.kill()
    with Store(tmp_path).making("wheel", "f1", wait_seconds=5) as stage:
        assert list(stage.iterdir()) == []


def test_second_maker_of_the_same_artifact_is_told_that_it_is_busy(tmp_path):
    """Two processes never make one artifact at the same time."""
    store = Store(tmp_path)
    second = store.making("wheel", "f1", wait_seconds=0.1)
    with store.making("wheel", "f1", wait_seconds=1), pytest.raises(StoreBusyError) as caught:
        second.__enter__()
    assert "wheel f1" in caught.value.what


def test_artifacts_of_a_kind_come_newest_first(tmp_path):
    """Whoever looks for the last artifact finds it in front."""
    store = Store(tmp_path)
    for key in ("f1", "f2", "f3"):
        keep(store, key=key)
    for key, made_at in (("f1", 2.0), ("f2", 3.0), ("f3", 1.0)):
        record = tmp_path / "wheel" / key / "artifact.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "made_at": made_at}))
    assert [artifact.key for artifact in store.artifacts("wheel")] == ["f2", "f1", "f3"]


def test_artifact_made_again_replaces_the_old_one_whole(tmp_path):
    """Nothing of an earlier folder shines through."""
    store = Store(tmp_path)
    keep(store)
    assert (keep(store, text="new").folder / "file").read_text() == "new"


def altered(path: Path) -> None:
    path.write_text("wrote")


def grown(path: Path) -> None:
    path.write_text("longer than it was")


@pytest.mark.parametrize("damage", [altered, Path.unlink])
def test_artifact_whose_file_was_damaged_or_lost_is_not_found_whole(tmp_path, damage):
    """What a disk or a person altered is not handed out as what was made, until it is made again."""
    store = Store(tmp_path)
    damage(keep(store).folder / "file")
    assert store.find_whole("wheel", "f1") is None
    keep(store)
    assert store.find_whole("wheel", "f1")


def test_what_python_leaves_beside_its_programs_is_no_damage(tmp_path):
    """An environment in the store runs programs, which may compile themselves."""
    store = Store(tmp_path)
    (keep(store).folder / "__pycache__").mkdir()
    (store.find("wheel", "f1").folder / "__pycache__" / "m.pyc").write_text("compiled")
    assert store.find_whole("wheel", "f1")


@pytest.mark.parametrize(("damage", "whole"), [(altered, True), (grown, False), (Path.unlink, False)])
def test_of_many_files_names_and_sizes_are_looked_at(tmp_path, damage, whole):
    """A torch environment of 20,000 files is not read whole each time that something is built."""
    files = {f"file{number}": "whole" for number in range(READ_AGAIN_FILES + 1)}
    artifact = making.keep(Store(tmp_path), "wheel", "f1", files=files, seconds=3.0)
    damage(artifact.folder / "file7")
    assert artifact.is_whole is whole


def test_artifact_whose_record_is_torn_is_not_there(tmp_path):
    """It is made again, as one that was lost."""
    store = Store(tmp_path)
    record = keep(store).folder / RECORD
    record.write_bytes(record.read_bytes()[:50])
    assert store.find("wheel", "f1") is None
    assert list(store.artifacts("wheel")) == []


def test_small_file_is_written_whole_and_leaves_no_other(tmp_path):
    """A reader of a written file never sees a part."""
    write_atomically(tmp_path / "deep" / "file", "text")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_text() == "text"


def test_equal_facts_are_one_version(tmp_path):
    """What is made again with the same content makes nothing after it stale, whenever and however long it was made."""
    store = Store(tmp_path)
    first = making.keep(store, "source", "s1", facts={"tree": "t"}, details={"origin": "index"}, seconds=1.0)
    again = making.keep(
        store, "source", "s2", facts={"tree": "t"}, details={"origin": "git"}, seconds=2.0, code="other"
    )
    assert first.version == again.version
    assert first.version != making.keep(store, "source", "s3", facts={"tree": "u"}).version
    assert first.version != making.keep(store, "onednn", "s1", facts={"tree": "t"}).version


def old_store(root: Path) -> Path:
    """A store as versions before there were layouts left it, with a wheel."""
    wheel = root / "wheel" / "0a1b"
    wheel.mkdir(parents=True)
    (wheel / "piece.json").write_text(json.dumps({"inputs": {}, "facts": {}, "made_at": 1.0, "seconds": 1.0}))
    (root / "locks").mkdir()
    return wheel


def test_store_of_an_earlier_version_is_emptied_with_one_line(tmp_path):
    """After an update I am told once that the old store goes; nothing of it is found, and nothing new goes with it."""
    said: list[str] = []
    wheel, store = old_store(tmp_path), Store(tmp_path)
    store.empty_older(said.append)
    assert len(said) == 1
    assert said[0].startswith("NOTICE: ")
    assert str(tmp_path) in said[0]
    assert not wheel.exists()
    keep(store)
    store.empty_older(said.append)
    assert len(said) == 1
    assert store.find("wheel", "f1")


def test_new_store_is_not_called_old(tmp_path):
    """The first build on a machine says nothing of stores."""
    said: list[str] = []
    Store(tmp_path / "store").empty_older(said.append)
    assert said == []


def test_store_of_an_earlier_version_can_be_planned_with(settings_environment):
    """A dry run in an old state folder ends in a plan, not in a traceback."""
    settings = load()
    wheel = old_store(settings.state_folder / "store")
    target = Target(release="0.32.0", python=PYTHON, variant="baseline")
    found = list(build_graph(settings, say=print).plans("wheel", target))
    assert [plan.artifact for plan, _ in found][-1] == "wheel"
    assert not any(artifact for _, artifact in found)
    assert wheel.is_dir()
