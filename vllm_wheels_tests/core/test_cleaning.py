"""What cleaning removes, and what it never touches."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import StoreBusyError
from vllm_wheels.core.operations.cleaning import rubbish, size_of, sweep
from vllm_wheels.core.publish.receipt import PublishedFile, Receipt, keep
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core import making


@pytest.fixture
def state(tmp_path) -> Path:
    """A state folder with something of everything."""
    for name in ("build/avx512-x/source", "store/staging/wheel-x", "plans/run", "ccache/0", "uv-cache/w", "dagster/h"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 5000)
    for release in ("0.16.0", "0.32.0"):
        _wheel(Store(tmp_path / "store"), release)
    return tmp_path


def _wheel(store: Store, release: str) -> None:
    target = Target(release=release, python="3.11", variant="avx512")
    making.keep(store, "wheel", release, target=target, facts={"sha256": release})


def removed(state: Path, *, keep: int = 3, caches: bool = False) -> set[str]:
    """Names of what is gone afterwards."""
    before = {path.relative_to(state).as_posix() for path in state.rglob("*")}
    sweep(rubbish(state, keep=keep, caches=caches))
    after = {path.relative_to(state).as_posix() for path in state.rglob("*")}
    return {"/".join(name.split("/")[:2]) for name in before - after}


def test_folders_that_a_build_makes_again_are_removed(state):
    """Build folders, leftovers and shown plans go."""
    assert removed(state) == {"build/avx512-x", "store/staging", "plans/run"}


def test_caches_go_only_when_asked_for(state):
    """Without its cache the next build takes an hour."""
    assert removed(state, caches=True) >= {"ccache/0", "uv-cache/w"}


def test_artifacts_of_old_releases_go_beyond_retention(state):
    """Only the newest release is to be kept."""
    sweep(rubbish(state, keep=1, caches=False))
    assert [artifact.key for artifact in Store(state / "store").artifacts("wheel")] == ["0.32.0"]


def test_published_wheel_is_never_removed(state):
    """A receipt names it, so it stays whatever I keep."""
    file = PublishedFile(
        name="x.whl", sha256="0.16.0", size=1, url="", listed_at="", uploaded_at=None, answers=(), reports={}
    )
    own = {
        "release": "0.16.0",
        "version": "0.16.0",
        "variant": "avx512",
        "project": "p",
        "repository": "r",
        "index": "",
    }
    keep(state, Receipt(**own, files=(file,)))
    sweep(rubbish(state, keep=0, caches=False))
    assert [artifact.key for artifact in Store(state / "store").artifacts("wheel")] == ["0.16.0"]


def test_nothing_is_removed_while_a_build_goes_on(state):
    """Another process makes artifacts here."""
    store = Store(state / "store")
    with store.in_use(wait_seconds=1), pytest.raises(StoreBusyError), store.alone():
        raise AssertionError


def test_builds_do_not_keep_each_other_out(state):
    """Two builds may work in one store."""
    store = Store(state / "store")
    with store.in_use(wait_seconds=0), store.in_use(wait_seconds=0):
        assert store.root.is_dir()


def test_size_counts_a_file_with_two_names_once(tmp_path):
    """Wheels are often hard links."""
    (tmp_path / "one").write_bytes(b"x" * 100_000)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert size_of(tmp_path) < 150_000
