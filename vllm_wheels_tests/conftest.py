"""What every test may use: an index with the miniature releases, and settings that lead there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_wheels_tests.fixtures import releases, torchlike
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


@pytest.fixture
def settings_environment(tmp_path, monkeypatch, miniature_index, torch_folder) -> dict[str, str]:
    """Sets VLLM_WHEELS_* so that a build takes the miniatures, the host's compiler and folders below tmp_path."""
    variables = {
        "VLLM_WHEELS_STATE_FOLDER": str(tmp_path / "state"),
        "VLLM_WHEELS_OUTPUT_FOLDER": str(tmp_path / "wheels"),
        "VLLM_WHEELS_INDEX__URL": miniature_index.url,
        "VLLM_WHEELS_INDEX__FIND_LINKS": json.dumps([str(torch_folder)]),
        "VLLM_WHEELS_TORCH__BACKEND": "none",
        "VLLM_WHEELS_ONEDNN__ORIGIN": "path",
        "VLLM_WHEELS_ONEDNN__PATH": str(releases.ONEDNN),
        "VLLM_WHEELS_BUILDER__KIND": "local",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
