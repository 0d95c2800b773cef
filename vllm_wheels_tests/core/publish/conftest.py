"""An index server behind a front, and a context to publish from."""

from __future__ import annotations

import shutil

import pytest

from vllm_wheels_tests.core.publishing import Desk
from vllm_wheels_tests.fixtures.front import fronted
from vllm_wheels_tests.fixtures.index_servers import pypiserver
from vllm_wheels_tests.fixtures.publishing import released_wheels


@pytest.fixture(scope="session")
def backend(tmp_path_factory):
    """The server that keeps the files."""
    with pypiserver(tmp_path_factory.mktemp("pypiserver")) as index:
        yield index


@pytest.fixture
def front(backend):
    """In front of an index without files."""
    for path in backend.packages.iterdir():
        path.unlink()
    with fronted(backend) as server:
        yield server


@pytest.fixture(scope="session")
def wheels_of_release(tmp_path_factory):
    """Output folder of a whole release."""
    folder = tmp_path_factory.mktemp("release") / "wheels"
    released_wheels(folder)
    return folder


@pytest.fixture
def context(tmp_path, front, wheels_of_release) -> Desk:
    """With wheels to be published to ``real``, the front."""
    shutil.copytree(wheels_of_release, tmp_path / "wheels")
    return Desk(tmp_path, {"real": {"upload_url": front.upload_url, "simple_url": front.simple_url}})
