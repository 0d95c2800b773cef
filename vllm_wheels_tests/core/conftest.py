"""What the tests of the checks share: an index that has nothing, and the harness."""

import pytest

from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify import actions
from vllm_wheels_tests.core.harness import Harness
from vllm_wheels_tests.fixtures.index import IndexServer


@pytest.fixture(scope="session")
def empty_index():
    """An index that offers nothing."""
    with IndexServer({}) as index:
        yield index


@pytest.fixture
def settings(tmp_path, empty_index):
    """Settings under which the index has nothing."""
    return Settings(state_folder=tmp_path / "state", index={"url": empty_index.url})


@pytest.fixture
def harness(tmp_path, monkeypatch):
    """Stand-ins for vLLM and torch."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    # These wheels are only good enough to be installed; what can be seen without that has tests of its own.
    monkeypatch.setattr(actions, "run_static_checks", lambda _, kept: ())  # noqa: ARG005 - called with it
    made = Harness(tmp_path)
    made.torch()
    return made
