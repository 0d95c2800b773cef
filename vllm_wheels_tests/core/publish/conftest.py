"""An index server behind a front, and a context to publish from."""

from __future__ import annotations

import os
import shutil

import pytest

from vllm_wheels_tests.core.publishing import Desk, tokens
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


@pytest.fixture
def environment(context, front) -> dict[str, str]:
    """Variables with which the command publishes two variants."""
    context.variants = ("avx512", "baseline")
    variables = {"REPOSITORY": "real", "REQUIRED_VARIANTS": '["avx512", "baseline"]', "REQUIRED_PYTHONS": '["3.11"]'}
    variables["REPOSITORIES"] = str(context.repositories).replace("'", '"')
    given = {f"VLLM_WHEELS_PUBLISH__{name}": value for name, value in variables.items()}
    folders = {"VLLM_WHEELS_OUTPUT_FOLDER": str(context.output), "VLLM_WHEELS_STATE_FOLDER": str(context.state)}
    return {**os.environ, **given, **folders, **tokens()}
