"""What every test may use: an index with the miniature releases, and settings that lead there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_wheels_tests.fixtures import building, releases, torchlike
from vllm_wheels_tests.fixtures.index import IndexServer, Offer, upstream_index


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch, tmp_path):
    """The user's own settings, by variable or by file in the working folder, are not the tests'."""
    for name in list(os.environ):
        if name.startswith("VLLM_WHEELS_") or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


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


def _variables(folder: Path, index: IndexServer, torch: Path) -> dict[str, str]:
    return {
        "VLLM_WHEELS_STATE_FOLDER": str(folder / "state"),
        "VLLM_WHEELS_OUTPUT_FOLDER": str(folder / "wheels"),
        "VLLM_WHEELS_INDEX__URL": index.url,
        "VLLM_WHEELS_INDEX__FIND_LINKS": json.dumps([str(torch)]),
        "VLLM_WHEELS_TORCH__BACKEND": "none",
        "VLLM_WHEELS_ONEDNN__ORIGIN": "path",
        "VLLM_WHEELS_ONEDNN__PATH": str(releases.ONEDNN),
        "VLLM_WHEELS_BUILDER__KIND": "local",
        # The miniatures ask for no more, and Debian 12 has no newer one.
        "VLLM_WHEELS_BUILDER__MINIMUM_COMPILER": "12.2",
    }


@pytest.fixture
def settings_environment(tmp_path, monkeypatch, miniature_index, torch_folder) -> dict[str, str]:
    """Sets VLLM_WHEELS_* so that a build takes the miniatures, the host's compiler and folders below tmp_path."""
    variables = _variables(tmp_path, miniature_index, torch_folder)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture(scope="session")
def built_once(tmp_path_factory, miniature_index, torch_folder) -> Path:
    """Folder with the state and the output of one verified baseline build; read it through ``built``."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        for name, value in _variables(folder, miniature_index, torch_folder).items():
            patch.setenv(name, value)
        done = building.build("wheel", "verification")
    assert [str(failure) for failure in done.failures] == []
    return folder


@pytest.fixture
def built(settings_environment, built_once, tmp_path) -> Path:
    """``settings_environment`` with a copy of the state and output of a verified baseline build."""
    shutil.copytree(built_once, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path
