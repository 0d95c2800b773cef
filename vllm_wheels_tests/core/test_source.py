"""The release's source comes from the index, from git or from a folder; nothing wrong is ever kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from pydantic_core import to_jsonable_python

from vllm_wheels.core.artifacts.source import RULE
from vllm_wheels.core.artifacts.source.planning import facts_of, require_python
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import (
    GitUnreachableError,
    HashMismatchError,
    IndexUnreachableError,
    MachineError,
    SettingsError,
    SourceError,
    UnknownFamilyError,
    UnknownReleaseError,
    UnsafeArchiveError,
    UnsupportedPythonError,
)
from vllm_wheels.core.host import http
from vllm_wheels.core.host.archives import tree_hash
from vllm_wheels.core.patches.upstream import read
from vllm_wheels.core.settings import IndexSettings, Settings, SourceSettings
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.loopback import Answer, closed_port, serve
from vllm_wheels_tests.core.making import drawn_up, make
from vllm_wheels_tests.core.small_trees import FILES, archive, git, repository, tree

TARGET = Target(release="0.32.0", python="3.11")
ARCHIVE = "vllm-0.32.0.tar.gz"


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in (*http.INDEX_VARIABLES, *http.CERTIFICATE_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


AFTER_AN_UPDATE = replace(RULE, constants=lambda _: {"code": "changed"})


def planned(settings, store, *, target=TARGET, rule=RULE):
    return drawn_up(rule, settings, store, target=target)


def from_index(url):
    return Settings(index=IndexSettings(url=url, timeout_seconds=5))


def as_text(plan):
    """All that a dry run may show of a plan."""
    return str(to_jsonable_python(plan, fallback=str))


def from_git(url, ref="v{release}"):
    return Settings(source=SourceSettings(origin="git", git_url=str(url), git_ref=ref))


def from_path(path):
    return Settings(source=SourceSettings(origin="path", path=path))


def test_source_comes_from_the_index(server, store, tmp_path):
    """By default the release's archive is downloaded, unpacked and read."""
    settings = from_index(server.index(server.file(ARCHIVE, archive())))
    artifact = make(planned(settings, store), settings, store)
    expected = tree(tmp_path / "expected")
    assert [path.name for path in artifact.folder.iterdir() if path.is_dir()] == ["tree"]
    assert artifact.facts["tree_sha256"] == tree_hash(expected) == tree_hash(artifact.folder / "tree")
    assert facts_of(artifact) == read(expected, release="0.32.0")
    assert artifact.details["origin"]["filename"] == ARCHIVE
    assert artifact.facts["deviations"] == []


def test_plan_tells_the_download_beforehand(server, store):
    """A dry run shows what is downloaded, how much, and the hash that it must have."""
    body = archive()
    plan = planned(from_index(server.index(server.file(ARCHIVE, body))), store)
    (wanted,) = plan.steps[0].downloads
    assert (wanted.url, wanted.size) == (f"{server.url}/files/{ARCHIVE}", len(body))
    assert wanted.sha256 == plan.inputs["sha256"]
    assert [path for path, _ in server.asked] == ["/simple/vllm/"]


def test_fingerprint_follows_the_published_hash_alone(server, store):
    """The Python and the index do not make another source; another archive does."""
    first = server.file(ARCHIVE, archive())
    one = planned(from_index(server.index(first)), store)
    other = planned(from_index(server.index(first)), store, target=Target(release="0.32.0", python="3.12"))
    changed = planned(from_index(server.index(server.file(ARCHIVE, archive() + b"x"))), store)
    assert one.key == other.key != changed.key


@pytest.mark.parametrize(
    ("lie", "why"),
    [({"hashes": {"sha256": "0" * 64}}, "SHA-256"), ({"size": 5}, "more than"), ({"size": 10**6}, "bytes, not")],
    ids=["hash", "longer", "shorter"],
)
def test_another_file_than_published_is_refused(server, store, lie, why):
    """A file with another hash or size than the index published is not unpacked."""
    settings = from_index(server.index(server.file(ARCHIVE, archive(), **lie)))
    with pytest.raises(HashMismatchError, match=ARCHIVE) as caught:
        make(planned(settings, store), settings, store)
    assert why in caught.value.why
    assert not list(store.artifacts("source"))


def test_truncated_archive_is_refused(server, store):
    """An archive that was published broken is named, and nothing is kept."""
    settings = from_index(server.index(server.file(ARCHIVE, archive()[:-20])))
    with pytest.raises(UnsafeArchiveError, match=ARCHIVE):
        make(planned(settings, store), settings, store)
    assert not list(store.artifacts("source"))


def test_download_is_tried_again(server, store):
    """A server that fails twice and then answers is no reason to stop."""
    settings = from_index(server.index(server.file(ARCHIVE, archive())))
    server.answers[f"/files/{ARCHIVE}"].fails_first = 2
    assert make(planned(settings, store), settings, store).details["upstream"]["release"] == "0.32.0"


@pytest.mark.parametrize(("answer", "times"), [(Answer(status=500), 3), (Answer(status=404), 1)], ids=["500", "404"])
def test_download_that_keeps_failing_ends(server, store, answer, times):
    """A server that keeps failing is given up after three attempts; a missing file at once."""
    settings = from_index(server.index(server.file(ARCHIVE, archive())))
    plan = planned(settings, store)
    server.answers[f"/files/{ARCHIVE}"] = answer
    with pytest.raises(IndexUnreachableError, match=ARCHIVE) as caught:
        make(plan, settings, store)
    assert str(answer.status) in caught.value.why
    assert [path for path, _ in server.asked].count(f"/files/{ARCHIVE}") == times


def test_download_that_breaks_off_ends(server, store):
    """A connection that ends in the middle of the file is an error of the network."""
    settings = from_index(server.index(server.file(ARCHIVE, archive())))
    plan = planned(settings, store)
    server.answers[f"/files/{ARCHIVE}"].claims = 10**6
    with pytest.raises(IndexUnreachableError, match=ARCHIVE) as caught:
        make(plan, settings, store)
    assert "broke" in caught.value.why


def test_index_may_be_a_folder(tmp_path, store):
    """Index and archive in a folder make a source without any network."""
    body = archive()
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / ARCHIVE).write_bytes(body)
    sha256 = hashlib.sha256(body).hexdigest()
    (tmp_path / "vllm/index.html").write_text(f'<a href="{ARCHIVE}#sha256={sha256}">{ARCHIVE}</a>')
    settings = from_index(str(tmp_path))
    assert make(planned(settings, store), settings, store).details["origin"]["sha256"] == sha256


def test_credentials_reach_the_server_and_not_the_plan(server, store):
    """An index behind a password gives its archive, and neither plan nor artifact shows the password."""
    url = server.index(server.file(ARCHIVE, archive())).replace("://", "://me:s3cret@")
    settings = from_index(url)
    plan = planned(settings, store)
    artifact = make(plan, settings, store)
    assert all(credentials for _, credentials in server.asked)
    assert "s3cret" not in as_text(plan) + json.dumps([artifact.facts, artifact.details, artifact.inputs])


def test_unreachable_index_is_replaced_by_the_store(server, store):
    """Without the index, the source that was made from it is used, and I am told so."""
    settings = from_index(server.index(server.file(ARCHIVE, archive())))
    artifact = make(planned(settings, store), settings, store)
    offline = from_index(f"http://127.0.0.1:{closed_port()}/simple/")
    plan = planned(offline, store)
    assert plan.key == artifact.key
    (notice,) = plan.notices
    assert "taken from the store" in notice
    assert offline.index.url in notice


@pytest.mark.parametrize("origin", ["index", "git"])
def test_source_of_the_store_outlives_an_update_of_this_program(server, store, tmp_path, origin):
    """Offline, also a newer vllm-wheels makes the source once more from the tree that an older one kept."""
    repository(tmp_path / "vllm", FILES, tag="v0.32.0")
    settings = from_index(server.index(server.file(ARCHIVE, archive())))
    if origin == "git":
        settings = from_git(f"file://{tmp_path}/vllm")
    artifact = make(planned(settings, store), settings, store)
    (tmp_path / "vllm").rename(tmp_path / "away")
    server.answers.clear()
    plan = planned(settings, store, rule=AFTER_AN_UPDATE)
    assert plan.key != artifact.key
    assert str(artifact.folder / "tree") in plan.steps[0].reads
    assert make(plan, settings, store).version == artifact.version


def test_store_does_not_stand_in_for_another_release(server, store):
    """Without the index, a release that the store does not have is an error."""
    settings = from_index(server.index(server.file(ARCHIVE, archive())))
    make(planned(settings, store), settings, store)
    offline = from_index(f"http://127.0.0.1:{closed_port()}/simple/")
    with pytest.raises(IndexUnreachableError):
        planned(offline, store, target=Target(release="0.31.0", python="3.11"))


def test_yanked_release_is_told(server, store):
    """A release that its publisher withdrew is built with a word about that."""
    settings = from_index(server.index(server.file(ARCHIVE, archive(), yanked="broken")))
    assert any("yanked" in notice for notice in planned(settings, store).notices)


def test_release_without_archive_is_refused(server, store):
    """A release that the index has only wheels of leads to git."""
    wheel = {"filename": "vllm-0.15.1-py3-none-any.whl", "url": "x", "hashes": {}, "yanked": False}
    with pytest.raises(SourceError, match="no source archive"):
        planned(from_index(server.index(wheel)), store, target=Target(release="0.15.1", python="3.11"))


@pytest.mark.parametrize("ref", ["v{release}", "refs/tags/v{release}", "main", "HASH"])
def test_source_comes_from_git(tmp_path, store, ref):
    """A tag, a branch or a full commit of a local repository gives its files, without git's own."""
    commit = repository(tmp_path / "vllm", FILES, tag="v0.32.0")
    settings = from_git(tmp_path / "vllm", ref.replace("HASH", commit))
    plan = planned(settings, store)
    artifact = make(plan, settings, store)
    assert plan.inputs["commit"] == artifact.details["origin"]["commit"] == commit
    assert artifact.facts["tree_sha256"] == tree_hash(tree(tmp_path / "expected"))
    assert not (artifact.folder / "tree/.git").exists()


def test_source_comes_from_an_older_commit(tmp_path, store):
    """A full commit id is taken as it is, also one that no tag or branch points to."""
    repo = tmp_path / "vllm"
    old = repository(repo, FILES, tag="v0.32.0")
    (repo / "vllm/new.py").touch()
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message", "new")
    git(repo, "tag", "--delete", "v0.32.0")
    settings = from_git(f"file://{repo}", old)
    artifact = make(planned(settings, store), settings, store)
    assert not (artifact.folder / "tree/vllm/new.py").exists()


def test_fixed_commit_is_not_for_release(tmp_path, store):
    """A commit of my choice is no release: the plan says so, and the artifact records it."""
    commit = repository(tmp_path / "vllm", FILES, tag="v0.32.0")
    plan = planned(from_git(tmp_path / "vllm", commit), store)
    assert "not for release" in plan.notices[0]


def test_password_of_a_repository_is_not_shown(store):
    """A repository behind a password is planned with, and the plan does not show the password."""
    plan = planned(from_git("https://me:s3cret@git.invalid/vllm.git", "a" * 40), store)
    assert "git.invalid/vllm.git" in as_text(plan)
    assert "s3cret" not in as_text(plan)


def test_moved_tag_is_noticed(tmp_path, store):
    """A tag that moves between plan and build does not give me other files than planned."""
    repo = tmp_path / "vllm"
    repository(repo, FILES, tag="v0.32.0")
    settings = from_git(repo)
    plan = planned(settings, store)
    git(repo, "commit", "--quiet", "--allow-empty", "--message", "new")
    git(repo, "tag", "--force", "v0.32.0")
    with pytest.raises(SourceError, match="has moved"):
        make(plan, settings, store)


def test_repository_without_the_tag_is_told(tmp_path, store):
    """A release that the repository has no tag of is unknown there."""
    repository(tmp_path / "vllm", FILES, tag="v0.32.0")
    with pytest.raises(UnknownReleaseError, match=r"v9\.9\.9"):
        planned(from_git(tmp_path / "vllm"), store, target=Target(release="9.9.9", python="3.11"))


@pytest.mark.parametrize("where", ["closed port", "no repository"])
def test_unreachable_repository_is_told(tmp_path, store, where):
    """A repository that cannot be read is an error that names it, and no password."""
    url = f"http://me:s3cret@127.0.0.1:{closed_port()}/vllm.git" if where == "closed port" else str(tmp_path)
    with pytest.raises(GitUnreachableError) as caught:
        planned(from_git(url), store)
    assert url.replace("me:s3cret@", "") in caught.value.what
    assert "s3cret" not in str(caught.value)


def test_unreachable_repository_is_replaced_by_the_store(tmp_path, store):
    """Without the repository, the source that was made from its tag is used, and I am told so."""
    repo = tmp_path / "vllm"
    repository(repo, FILES, tag="v0.32.0")
    settings = from_git(f"file://{repo}")
    artifact = make(planned(settings, store), settings, store)
    repo.rename(tmp_path / "away")
    plan = planned(settings, store)
    assert plan.key == artifact.key
    assert "taken from the store" in plan.notices[0]


def test_link_out_of_a_repository_is_refused(tmp_path, store):
    """A repository whose tree has a link that leads out makes no source."""
    repo = tmp_path / "vllm"
    repo.mkdir()
    (repo / "out").symlink_to("../../secret")
    repository(repo, FILES, tag="v0.32.0")
    settings = from_git(repo)
    with pytest.raises(SourceError, match="leads out"):
        make(planned(settings, store), settings, store)


def test_missing_git_is_told(tmp_path, store, monkeypatch):
    """Without git I am told how to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        planned(from_git(tmp_path), store)
    assert caught.value.remedy == "apt-get install git"


def test_git_of_a_hook_does_not_interfere(tmp_path, store, monkeypatch):
    """Started by a git hook, the hook's repository is left alone."""
    commit = repository(tmp_path / "vllm", FILES, tag="v0.32.0")
    repository(tmp_path / "mine", {"a": "a"}, tag="mine")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "mine/.git"))
    settings = from_git(tmp_path / "vllm")
    assert make(planned(settings, store), settings, store).inputs["commit"] == commit


def test_source_comes_from_a_folder(tmp_path, store):
    """A local tree is copied without git's and Python's own folders, and is not for release."""
    folder = tree(tmp_path / "vllm", {"vllm/__pycache__/x.pyc": "x", ".git/HEAD": "x"})
    settings = from_path(folder)
    plan = planned(settings, store)
    artifact = make(plan, settings, store)
    assert not (artifact.folder / "tree/.git").exists()
    assert not (artifact.folder / "tree/vllm/__pycache__").exists()
    assert artifact.facts["tree_sha256"] == plan.inputs["tree_sha256"] == tree_hash(folder)
    assert "local tree" in artifact.facts["deviations"][0]


def test_edited_folder_is_another_source(tmp_path, store):
    """An edit in a local tree is seen by the next plan."""
    folder = tree(tmp_path / "vllm")
    before = planned(from_path(folder), store).key
    (folder / "vllm/__init__.py").write_text("x = 1")
    assert planned(from_path(folder), store).key != before


def test_folder_that_changes_meanwhile_is_noticed(tmp_path, store):
    """An edit between plan and build does not slip into the artifact."""
    settings = from_path(tree(tmp_path / "vllm"))
    plan = planned(settings, store)
    (tmp_path / "vllm/vllm/__init__.py").write_text("x = 1")
    with pytest.raises(HashMismatchError, match="changed"):
        make(plan, settings, store)


def test_folder_that_is_no_vllm_tree_is_refused(tmp_path, store):
    """A local path that is not vLLM's source is refused before anything is copied."""
    with pytest.raises(UnknownFamilyError):
        planned(from_path(tmp_path), store)


def test_missing_folder_is_refused(tmp_path, store):
    """A local path that does not exist is named."""
    with pytest.raises(SourceError, match="nowhere"):
        planned(from_path(tmp_path / "nowhere"), store)


def test_path_must_be_set(store):
    """With origin path, I am told which setting is missing."""
    with pytest.raises(SettingsError) as caught:
        planned(from_path(None), store)
    assert "source.path" in caught.value.remedy


def test_unsupported_python_is_refused(tmp_path):
    """A Python that the release does not support is refused with those that it does."""
    upstream = read(tree(tmp_path), release="0.32.0")
    require_python(upstream, TARGET)
    with pytest.raises(UnsupportedPythonError, match=r"3\.10") as caught:
        require_python(upstream, Target(release="0.32.0", python="3.10"))
    assert "3.11, 3.12, 3.13" in caught.value.why
