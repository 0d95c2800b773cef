"""oneDNN is the one that the release pins; whatever stands in for it is asked for, said loudly and recorded."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from vllm_wheels.core.artifacts.onednn import RULE
from vllm_wheels.core.builders import apt
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import GitUnreachableError, MachineError, NetworkError, SettingsError, SourceError
from vllm_wheels.core.host.archives import tree_hash
from vllm_wheels.core.patches.upstream import read
from vllm_wheels.core.settings import IndexSettings, OneDnnSettings, Settings
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.loopback import Answer, closed_port, serve
from vllm_wheels_tests.core.making import artifact as finished
from vllm_wheels_tests.core.making import drawn_up, make
from vllm_wheels_tests.core.small_trees import ONEDNN, git, repository, tree, write

TARGET = Target(release="0.32.0", python="3.11")
VERSION = "3.7.2+ds-2"

debian = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-source")), reason="needs Debian's apt-get and dpkg-source"
)


AFTER_AN_UPDATE = replace(RULE, constants=lambda _: {"code": "changed"})


def planned(upstream, settings, store, rule=RULE):
    source = finished("source", store.root, details={"upstream": asdict(upstream)}, facts={"tree_sha256": "a"})
    return drawn_up(rule, settings, store, target=TARGET, known={"source": source})


@pytest.fixture
def upstream(tmp_path):
    return read(tree(tmp_path / "vllm"), release="0.32.0")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def configured(tmp_path):
    def settings(substitutes="refuse", **onednn):
        index = IndexSettings(timeout_seconds=5)
        return Settings(
            state_folder=tmp_path / "state", substitutes=substitutes, index=index, onednn=OneDnnSettings(**onednn)
        )

    return settings


@pytest.fixture
def mirror(monkeypatch):
    """A mirror of Debian with one source package, unsigned and therefore declared trusted, which this host uses."""
    with serve() as server:
        publish(server, VERSION)
        monkeypatch.setattr(apt, "host_mirror", lambda _: f"{server.url}/debian")
        monkeypatch.setattr(apt, "SOURCE", f"{apt.SOURCE}Trusted: yes\n")
        yield server


def publish(server, version, files=ONEDNN):
    """Puts a native source package into a suite called trixie."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for name, text in {**files, "debian/source/format": "3.0 (native)\n"}.items():
            info = tarfile.TarInfo(f"onednn-{version}/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    archive, name = buffer.getvalue(), f"onednn_{version}.tar.xz"
    common = f"Binary: libdnnl-dev\nArchitecture: any\nVersion: {version}\nMaintainer: t <t@t.invalid>\n"
    control = f"Format: 3.0 (native)\nSource: onednn\n{common}{sums(name, archive)}".encode()
    entry = f"Package: onednn\nFormat: 3.0 (native)\n{common}Directory: pool/main/o/onednn\n"
    sources = (entry + sums(name, archive, (f"onednn_{version}.dsc", control))).encode()
    moment = format_datetime(datetime.now(UTC), usegmt=True)
    listed = f" {hashlib.sha256(sources).hexdigest()} {len(sources)} main/source/Sources\n"
    release = f"Origin: t\nSuite: trixie\nCodename: trixie\nDate: {moment}\nComponents: main\nSHA256:\n{listed}"
    server.answers |= {
        "/debian/dists/trixie/Release": Answer(release.encode()),
        "/debian/dists/trixie/main/source/Sources": Answer(sources),
        f"/debian/pool/main/o/onednn/{name}": Answer(archive),
        f"/debian/pool/main/o/onednn/onednn_{version}.dsc": Answer(control),
    }


def sums(name, body, *more):
    text = ""
    for title, algorithm in (("Checksums-Sha256", hashlib.sha256), ("Files", hashlib.md5)):
        lines = [f" {algorithm(content).hexdigest()} {len(content)} {file}" for file, content in ((name, body), *more)]
        text += f"{title}:\n" + "\n".join(lines) + "\n"
    return text


def test_pinned_onednn_comes_from_git(tmp_path, upstream, configured, store):
    """The tag that the release pins is fetched from the repository that I name, and its commit recorded."""
    commit = repository(tmp_path / "oneDNN", ONEDNN, tag="v3.13")
    settings = configured(git_url=str(tmp_path / "oneDNN"))
    plan = planned(upstream, settings, store)
    artifact = make(plan, settings, store)
    facts = artifact.details["onednn"]
    assert plan.inputs["commit"] == facts["commit"] == commit
    assert (facts["version"], facts["origin"], facts["pinned"], facts["deviates"]) == ("3.13", "pinned", "v3.13", False)
    assert (plan.notices, artifact.facts["deviations"]) == ((), [])
    assert artifact.facts["tree_sha256"] == tree_hash(artifact.folder / "tree")


def test_repository_without_the_tag_is_told(tmp_path, upstream, configured, store):
    """A mirror that lacks the pinned tag is named together with the tag, whether substitutes are allowed or not."""
    repository(tmp_path / "oneDNN", ONEDNN, tag="v1")
    with pytest.raises(SourceError, match=r"no v3\.13") as caught:
        planned(upstream, configured("allow", git_url=str(tmp_path / "oneDNN")), store)
    assert "0.32.0 pins it" in caught.value.why


def test_tree_that_is_no_onednn_is_refused(tmp_path, upstream, configured, store):
    """A repository of something else under the same tag does not become oneDNN."""
    repository(tmp_path / "other", {"README": "x"}, tag="v3.13")
    settings = configured(git_url=str(tmp_path / "other"))
    with pytest.raises(SourceError, match="no source tree of oneDNN"):
        make(planned(upstream, settings, store), settings, store)


def test_unreachable_git_host_leads_to_both_settings(upstream, configured, store):
    """Without the git host I am told of both settings: another origin, or permission for substitutes."""
    url = f"http://127.0.0.1:{closed_port()}/oneDNN.git"
    with pytest.raises(GitUnreachableError, match=url) as caught:
        planned(upstream, configured(git_url=url), store)
    assert "onednn.origin" in caught.value.remedy
    assert "--allow-substitutes" in caught.value.remedy


def test_unreachable_git_host_is_replaced_by_the_store(tmp_path, upstream, configured, store):
    """The pinned oneDNN that was fetched before is better than any substitute."""
    repo = tmp_path / "oneDNN"
    repository(repo, ONEDNN, tag="v3.13")
    settings = configured("allow", git_url=f"file://{repo}")
    artifact = make(planned(upstream, settings, store), settings, store)
    repo.rename(tmp_path / "away")
    plan = planned(upstream, settings, store)
    assert plan.key == artifact.key
    assert "taken from the store" in plan.notices[0]
    updated = planned(upstream, settings, store, AFTER_AN_UPDATE)
    assert updated.key != artifact.key
    assert make(updated, settings, store).version == artifact.version


@debian
@pytest.mark.usefixtures("mirror")
def test_onednn_comes_from_debian(upstream, configured, store):
    """On demand Debian's source package is taken from the host's mirror, and recorded as not the pin."""
    settings = configured(origin="debian")
    plan = planned(upstream, settings, store)
    assert {download.url.rpartition("/")[2] for download in plan.steps[0].downloads} == {
        f"onednn_{VERSION.replace('+', '%2b')}.{end}" for end in ("dsc", "tar.xz")
    }
    assert all(download.size and download.sha256 for download in plan.steps[0].downloads)
    artifact = make(plan, settings, store)
    facts = artifact.details["onednn"]
    assert (facts["version"], facts["suite"], facts["deviates"]) == (VERSION, "trixie", True)
    assert artifact.facts["deviations"] == ["oneDNN 3.7.2 of Debian trixie stands in for the pinned v3.13"]
    assert (artifact.folder / "tree/include/oneapi/dnnl/dnnl.h").is_file()
    assert sorted(path.name for path in artifact.folder.iterdir()) == ["artifact.json", "tree"]


@debian
@pytest.mark.usefixtures("mirror")
def test_substitute_is_taken_loudly(upstream, configured, store):
    """Where substitutes are allowed, Debian's oneDNN stands in for an unreachable pin, and I am told all of it."""
    url = f"http://127.0.0.1:{closed_port()}/oneDNN.git"
    plan = planned(upstream, configured("allow", git_url=url), store)
    notice, *_ = plan.notices
    for part in ("oneDNN 3.7.2 of Debian trixie", "pinned v3.13", url, "not for release"):
        assert part in notice


@debian
def test_newer_package_is_another_artifact(mirror, upstream, configured, store):
    """An update of Debian's package is seen by the next plan."""
    settings = configured(origin="debian")
    before = planned(upstream, settings, store).key
    publish(mirror, "3.9-1", {**ONEDNN, "NEWS": "new"})
    assert planned(upstream, settings, store).key != before


@debian
@pytest.mark.usefixtures("mirror")
def test_another_pin_is_another_artifact(upstream, configured, store):
    """The same package in place of another pin is recorded as such."""
    settings = configured(origin="debian")
    one = planned(upstream, settings, store)
    other = planned(replace(upstream, onednn_tag="v3.10"), settings, store)
    assert one.key != other.key


@debian
def test_package_that_is_not_there_is_told(mirror, upstream, configured, store):
    """A suite without oneDNN is an error that names the suite."""
    mirror.answers["/debian/dists/trixie/main/source/Sources"] = Answer()
    text = mirror.answers["/debian/dists/trixie/Release"].body.decode().rpartition("SHA256:")[0]
    empty = f"SHA256:\n {hashlib.sha256(b'').hexdigest()} 0 main/source/Sources\n"
    mirror.answers["/debian/dists/trixie/Release"] = Answer((text + empty).encode())
    with pytest.raises(SourceError, match="onednn in Debian trixie"):
        planned(upstream, configured(origin="debian"), store)


@debian
def test_suite_that_is_not_there_is_told(mirror, upstream, configured, store):
    """A suite that the mirror lacks is an error that names both."""
    with pytest.raises(NetworkError, match="nosuch") as caught:
        planned(upstream, configured(origin="debian", debian_suite="nosuch"), store)
    assert mirror.url in caught.value.what


@debian
def test_unreachable_mirror_is_replaced_by_the_store(mirror, upstream, configured, store):
    """Without the mirror, the package that was taken before is used, and I am told so."""
    settings = configured(origin="debian")
    artifact = make(planned(upstream, settings, store), settings, store)
    mirror.answers.clear()
    plan = planned(upstream, settings, store)
    assert plan.key == artifact.key
    assert "taken from the store" in plan.notices[0]
    assert "not for release" in plan.notices[1]


@debian
def test_file_that_differs_from_the_lists_is_refused(mirror, upstream, configured, store):
    """A package file that is not what the mirror's lists say never becomes a source."""
    settings = configured(origin="debian")
    plan = planned(upstream, settings, store)
    path = f"/debian/pool/main/o/onednn/onednn_{VERSION}.tar.xz"
    mirror.answers[path] = Answer(b"x" * len(mirror.answers[path].body))
    with pytest.raises(NetworkError, match="onednn"):
        make(plan, settings, store)


def test_host_without_debian_mirror_is_told(upstream, configured, store, monkeypatch):
    """On a host that is no Debian the remedy is a local tree."""
    monkeypatch.setattr(apt, "host_mirror", lambda _: None)
    with pytest.raises(MachineError) as caught:
        planned(upstream, configured(origin="debian"), store)
    assert "path" in caught.value.remedy


def test_missing_apt_is_told(tmp_path, upstream, configured, store, monkeypatch):
    """Without apt-get I am told how to install it."""
    monkeypatch.setattr(apt, "host_mirror", lambda _: "http://mirror.invalid/debian")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        planned(upstream, configured(origin="debian"), store)
    assert caught.value.remedy == "apt-get install apt"


def test_onednn_comes_from_a_folder(tmp_path, upstream, configured, store):
    """A local tree is copied, its version read, and recorded as not the pin."""
    settings = configured(origin="path", path=write(tmp_path / "oneDNN", ONEDNN))
    plan = planned(upstream, settings, store)
    artifact = make(plan, settings, store)
    assert artifact.details["onednn"]["version"] == "3.13.1"
    assert artifact.details["onednn"]["deviates"] is True
    assert "not for release" in plan.notices[0]
    assert plan.inputs["tree_sha256"] == artifact.facts["tree_sha256"]


def test_folder_that_is_no_onednn_is_refused(tmp_path, upstream, configured, store):
    """A local path that is not oneDNN's source is refused before anything is copied."""
    with pytest.raises(SourceError, match="no source tree of oneDNN"):
        planned(upstream, configured(origin="path", path=tmp_path), store)


def test_path_must_be_set(upstream, configured, store):
    """With origin path, I am told which setting is missing."""
    with pytest.raises(SettingsError) as caught:
        planned(upstream, configured(origin="path"), store)
    assert "onednn.path" in caught.value.remedy


def test_missing_git_is_no_reason_for_a_substitute(tmp_path, upstream, configured, store, monkeypatch):
    """Substitutes stand in for what cannot be reached, not for a tool that is not installed."""
    repository(tmp_path / "oneDNN", ONEDNN, tag="v3.13")
    assert git(tmp_path / "oneDNN", "tag") == "v3.13"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="git"):
        planned(upstream, configured("allow", git_url=str(tmp_path / "oneDNN")), store)
