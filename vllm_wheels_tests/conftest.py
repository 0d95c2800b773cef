"""What every test may use: an index with the miniature releases, and settings that lead there."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from vllm_wheels.core.builders.compiler_cache import CACHE
from vllm_wheels.core.host import http
from vllm_wheels_tests.fixtures import building, releases, torchlike
from vllm_wheels_tests.fixtures.index import IndexServer, Offer, upstream_index
from vllm_wheels_tests.fixtures.miniature import variables

# A shell makes what it starts in the background ignore Ctrl-C, and with the tests every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch, tmp_path):
    """The user's own settings, by variable or by file in the working folder, are not the tests'."""
    for name in list(os.environ):
        if name.startswith("VLLM_WHEELS_") or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """Nobody waits between two attempts at a server of loopback."""
    monkeypatch.setattr(http, "CLOCK", http.Clock(sleep=lambda _: None))


@event.listens_for(Engine, "connect")
def _need_not_outlive_a_power_cut(connection, _record):
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session")
def torch_folder(tmp_path_factory) -> Path:
    """CPU builds of the torch stand-ins, for use as find-links."""
    folder = tmp_path_factory.mktemp("torch")
    torchlike.cpu_wheels(folder)
    return folder


@pytest.fixture(scope="session")
def miniature_index(tmp_path_factory) -> Iterator[IndexServer]:
    """An index with vLLM 0.32.0 and 0.16.0 in miniature, and with CUDA builds of torch as a real index has them."""
    folder = tmp_path_factory.mktemp("index")
    floors = {"0.32.0": ">=3.11,<3.15", "0.16.0": ">=3.10,<3.14"}
    sdists = [
        Offer(path=releases.sdist(tree, release, folder), requires_python=floors[release])
        for release, tree in releases.RELEASES.items()
    ]
    projects = {"vllm": sdists, **torchlike.cuda_wheels(folder)}
    with IndexServer(projects, upstream=upstream_index()) as index:
        yield index


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory) -> Path:
    """What compilers made so far in this session, under this worker or another."""
    folder = tmp_path_factory.getbasetemp()
    shared = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "compiled"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture
def settings_environment(tmp_path, monkeypatch, miniature_index, torch_folder, compiled_once) -> dict[str, str]:
    """Sets VLLM_WHEELS_* so that a build takes the miniatures, the host's compiler and folders below tmp_path."""
    building.share_compiled(tmp_path / "state", compiled_once)
    wanted = variables(tmp_path, miniature_index, torch_folder)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return wanted


@pytest.fixture
def cold_compiler(settings_environment, tmp_path) -> None:
    """``settings_environment`` in which every file has yet to be compiled, so that there is time to interrupt it."""
    (tmp_path / "state" / CACHE).unlink()


@pytest.fixture(scope="session")
def built_once(tmp_path_factory, miniature_index, torch_folder, compiled_once) -> Iterator[Path]:
    """Folder with the state and the output of one verified baseline build; read it through ``built``."""
    folder = tmp_path_factory.mktemp("built")
    building.share_compiled(folder / "state", compiled_once)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        for name, value in variables(folder, miniature_index, torch_folder).items():
            patch.setenv(name, value)
        done = building.build("wheel", "verification")
    assert [str(failure) for failure in done.failures] == []
    as_made = _written(folder)
    yield folder
    assert _written(folder) == as_made, "a test changed what others read"


def _written(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in (folder / "state" / "store").rglob("*") if path.is_file()}


@pytest.fixture
def built(settings_environment, built_once, tmp_path) -> Path:
    """``settings_environment`` with a copy of the state and output of a verified baseline build."""
    building.copy_artifacts(built_once / "state", tmp_path / "state")
    shutil.copytree(built_once / "wheels", tmp_path / "wheels")
    return tmp_path
