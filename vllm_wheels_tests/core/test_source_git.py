"""What a repository calls a release is looked at: tags that move, branches, and parts that are kept elsewhere."""

from __future__ import annotations

import pytest

from vllm_wheels.core.artifacts.source import RULE
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import SourceError
from vllm_wheels.core.settings import Settings, SourceSettings
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.making import drawn_up, make
from vllm_wheels_tests.core.small_trees import FILES, git, repository


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def from_git(url):
    return Settings(source=SourceSettings(origin="git", git_url=str(url)))


def planned(settings, store):
    return drawn_up(RULE, settings, store, target=Target(release="0.32.0", python="3.11"))


def test_tag_that_moved_since_the_last_time_is_told(tmp_path, store):
    """A release whose tag stands for another commit than it did is built again, and I am told of both commits."""
    repo = tmp_path / "vllm"
    before = repository(repo, FILES, tag="v0.32.0")
    settings = from_git(repo)
    make(planned(settings, store), settings, store)
    assert not planned(settings, store).notices
    git(repo, "commit", "--quiet", "--allow-empty", "--message", "new")
    git(repo, "tag", "--force", "v0.32.0")
    (notice,) = planned(settings, store).notices
    assert before[:12] in notice
    assert git(repo, "rev-parse", "HEAD")[:12] in notice


def test_branch_called_like_a_release_is_none(tmp_path, store):
    """A branch v0.32.0 may be built, and is not for release."""
    repo = tmp_path / "vllm"
    repository(repo, FILES, tag="other")
    git(repo, "branch", "v0.32.0")
    (notice,) = planned(from_git(repo), store).notices
    assert "is a branch" in notice
    assert "not for release" in notice


def test_submodule_is_refused(tmp_path, store):
    """A repository that keeps a part of itself elsewhere does not give me a tree with a hole."""
    repo = tmp_path / "vllm"
    commit = repository(repo, FILES, tag="other")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{commit},csrc/part")
    git(repo, "commit", "--quiet", "--message", "submodule")
    git(repo, "tag", "v0.32.0")
    settings = from_git(repo)
    with pytest.raises(SourceError, match="submodules") as caught:
        make(planned(settings, store), settings, store)
    assert "csrc/part" in caught.value.why
