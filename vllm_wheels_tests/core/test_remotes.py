"""Remote stores: what one machine made another takes, whole and signed by somebody it trusts, or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vllm_wheels.core.engine import sealed
from vllm_wheels.core.engine.remotes import LAYOUT, Remotes
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.errors import RemoteStoreError, SettingsError, UnsafeArchiveError
from vllm_wheels.core.host.signing import SigningKey, generate, read_key
from vllm_wheels.core.sections import RemoteSettings, StoreSettings
from vllm_wheels_tests.core import making
from vllm_wheels_tests.core.loopback import Answer, Server, closed_port, serve
from vllm_wheels_tests.fixtures import servers

KIND, KEY = "compiled", "c1"


@dataclass
class Machine:
    """One of several machines: a store of its own, and what it said."""

    folder: Path
    settings: StoreSettings
    said: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def remotes(self) -> Remotes:
        """As a new run has them."""
        return Remotes(settings=self.settings, store=self.store, failed=set(), say=self.said.append)

    def fetched(self, key: str = KEY) -> Artifact | None:
        return self.remotes.fetched(KIND, key, wait_seconds=1)

    def notices(self) -> list[str]:
        return [line for line in self.said if line.startswith("NOTICE: ")]


def made(machine: Machine, key: str = KEY) -> Artifact:
    """An artifact with a program, a link and a folder in a folder."""
    plain = making.keep(machine.store, KIND, key, files={"_C.so": "machine code"}, facts={"abi": 3}, seconds=1500.0)
    with machine.store.making(KIND, key, wait_seconds=1) as stage:
        (stage / "_C.so").write_text("machine code")
        (stage / "_C.so").chmod(0o755)
        (stage / "deep").mkdir()
        (stage / "deep" / "link").symlink_to("../_C.so")
        return machine.store.take(stage, KIND, key, plain.record)


def sealed_by(key: SigningKey, artifact: Artifact, folder: Path) -> bytes:
    sealed.seal(artifact, folder / "object", key)
    return (folder / "object").read_bytes()


@pytest.fixture
def office(tmp_path) -> SigningKey:
    return generate(tmp_path / "office.pem")


@pytest.fixture
def web() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def first(tmp_path) -> Machine:
    """The machine that made something."""
    return Machine(tmp_path / "first", StoreSettings())


@pytest.fixture
def reader(tmp_path, office, web) -> Callable[..., Machine]:
    """Machines that read static files, and trust the office's key."""

    def machine(**others: RemoteSettings) -> Machine:
        remotes = {**others, "cache": RemoteSettings(url=web.url)}
        return Machine(tmp_path / "second", StoreSettings(remotes=remotes, trusted_keys={"office": office.public}))

    return machine


def put(web: Server, body: bytes, key: str = KEY) -> None:
    web.answers[f"/{LAYOUT}/{KIND}/{key}"] = Answer(body)


@pytest.fixture
def genuine(first, office, tmp_path) -> bytes:
    """What the first machine made, signed by the office."""
    return sealed_by(office, made(first), tmp_path)


def test_machine_takes_what_another_made_from_static_files(reader, web, first, office, tmp_path):
    """Files, modes, links and everything that is recorded arrive; the folder can be anywhere on a web server."""
    original = made(first)
    put(web, sealed_by(office, original, tmp_path))
    second = reader()
    artifact = second.fetched()
    assert artifact is not None
    assert artifact.record == original.record
    assert artifact.version == original.version
    assert (artifact.folder / "deep" / "link").read_text() == "machine code"
    assert os.access(artifact.folder / "_C.so", os.X_OK)
    assert second.store.find(KIND, KEY) == artifact
    assert second.notices() == []
    assert list((second.store.root / "staging").iterdir()) == []


def test_artifact_that_no_remote_has_is_made_here_without_a_word(reader):
    """A miss is no news."""
    machine = reader()
    assert machine.fetched() is None
    assert machine.said == []


def altered_manifest(body: bytes) -> bytes:
    return body.replace(b"1500.0", b"1501.0", 1)


def altered_files(body: bytes) -> bytes:
    return body[:-20] + bytes([body[-20] ^ 1]) + body[-19:]


def unsigned(body: bytes) -> bytes:
    line, _, rest = body.partition(b"\n")
    head = json.loads(line)
    return json.dumps({"manifest": head["manifest"]}).encode() + b"\n" + rest


REFUSED = {
    "manifest": (altered_manifest, "its signature is not that of the key 'office'"),
    "files": (altered_files, "its files are not those that were signed"),
    "longer": (lambda body: body + b"more", "its files are not those that were signed"),
    "cut": (lambda body: body[:-20], "its files are not those that were signed"),
    "unsigned": (unsigned, "it is unsigned, or no artifact at all"),
    "page": (lambda _: b"<html>log in</html>", "it is unsigned, or no artifact at all"),
    "empty": (lambda _: b"", "it is unsigned, or no artifact at all"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_unsigned_or_altered_artifact_is_refused_loudly(reader, web, genuine, change):
    """Whatever was done to an object: it is said, nothing of it is kept, and the artifact is made here."""
    alter, why = REFUSED[change]
    put(web, alter(genuine))
    machine = reader()
    assert machine.fetched() is None
    (notice,) = machine.notices()
    assert why in notice
    assert notice.endswith("it is made here")
    assert [path for path in machine.store.root.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_artifact_under_the_name_of_another_is_refused(reader, web, genuine):
    """A genuine, signed artifact cannot stand in for one with other inputs."""
    put(web, genuine, key="another")
    machine = reader()
    assert machine.fetched("another") is None
    assert "under a wrong name" in machine.notices()[0]


def test_artifact_signed_by_a_key_that_is_not_named_is_refused(reader, web, first, tmp_path):
    """A stranger who can write to the bucket cannot give me a wheel, not even under a name that I trust."""
    stranger = generate(tmp_path / "elsewhere" / "office.pem")
    put(web, sealed_by(stranger, made(first), tmp_path))
    machine = reader()
    assert machine.fetched() is None
    assert "its signature is not that of the key 'office'" in machine.notices()[0]
    other = generate(tmp_path / "stranger.pem")
    put(web, sealed_by(other, made(first, "c2"), tmp_path), key="c2")
    assert machine.fetched("c2") is None
    assert "the key 'stranger' that signed it is not trusted" in machine.notices()[1]


def test_remote_that_is_not_there_costs_seconds_and_is_said_once(reader, web, genuine):
    """With the first two of three remotes gone, the third serves; those are named once in a run."""
    put(web, genuine)
    gone = RemoteSettings(url=f"http://127.0.0.1:{closed_port()}", timeout_seconds=2)
    bucket = RemoteSettings(url=f"s3://b?endpoint=http://127.0.0.1:{closed_port()}&region=r", timeout_seconds=2)
    machine = reader(gone=gone, bucket=bucket)
    started, remotes = time.monotonic(), machine.remotes
    assert remotes.fetched(KIND, "unknown", wait_seconds=1) is None
    assert remotes.fetched(KIND, KEY, wait_seconds=1) is not None
    assert time.monotonic() - started < 15
    assert [line.split(" is left alone")[0] for line in machine.notices()] == [
        "NOTICE: the remote store gone",
        "NOTICE: the remote store bucket",
    ]


def test_answer_that_breaks_off_is_given_up(reader, web, genuine):
    """Half an object is neither kept nor waited for."""
    web.answers[f"/{LAYOUT}/{KIND}/{KEY}"] = Answer(genuine[:-20], claims=len(genuine))
    machine = reader()
    assert machine.fetched() is None
    assert "is left alone in this run" in machine.notices()[0]
    assert machine.store.find(KIND, KEY) is None


def test_artifact_that_leads_out_of_its_folder_is_not_pushed(first, office, tmp_path):
    """What the unpacker of others would refuse is refused while it is packed."""
    artifact = made(first)
    (artifact.folder / "out").symlink_to("/etc/passwd")
    with pytest.raises(UnsafeArchiveError, match="leads out"):
        sealed_by(office, artifact, tmp_path)


def test_artifact_that_cannot_be_packed_fails_no_build(tmp_path, office, first):
    """What was made stays, and why nobody else gets it is said."""
    remotes = {"gone": RemoteSettings(url=f"http://127.0.0.1:{closed_port()}", push=True)}
    first.settings = StoreSettings(remotes=remotes, signing_key=tmp_path / "office.pem")
    artifact = made(first)
    (artifact.folder / "out").symlink_to("/etc/passwd")
    first.remotes.push(artifact)
    assert "compiled is given to no remote store: it is a link that leads out" in first.notices()[0]


def test_static_files_cannot_be_pushed_to(reader, first, office, tmp_path):
    """The error names what can be written to."""
    machine = reader()
    machine.settings = machine.settings.model_copy(update={"signing_key": tmp_path / "office.pem"})
    remotes = machine.remotes
    with pytest.raises(RemoteStoreError, match="can only be read"):
        remotes.push_to(remotes.remote("cache"), made(first))


NAMED = {"k": "k"}
UNWORKABLE = {
    "unsigned": (RemoteSettings(url="http://a", push=True), NAMED, "there is no store.signing_key"),
    "trusting-nobody": (RemoteSettings(url="http://a"), {}, "no key is in store.trusted_keys"),
    "address": (RemoteSettings(url="ftp://a"), NAMED, "neither a bucket"),
    "option": (RemoteSettings(url="s3://a?secret=b"), NAMED, "neither a bucket"),
}


@pytest.mark.parametrize("case", UNWORKABLE)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(tmp_path, case):
    """Nobody finds out after an hour of compiling that nothing could be pushed or trusted."""
    remote, trusted, why = UNWORKABLE[case]
    with pytest.raises(SettingsError) as caught:
        Machine(tmp_path, StoreSettings(remotes={"a": remote}, trusted_keys=trusted)).fetched()
    assert why in caught.value.why


def test_key_that_others_may_read_signs_nothing(tmp_path):
    """A private key is private, or it is none."""
    generate(tmp_path / "office.pem")
    (tmp_path / "office.pem").chmod(0o644)
    with pytest.raises(SettingsError, match="cannot be signed with"):
        read_key(tmp_path / "office.pem")


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Iterator[str]:
    for name, value in servers.KEYS.items():
        monkeypatch.setenv(name, value)
    with servers.s3(tmp_path) as url:
        yield url


@pytest.mark.servers
def test_bucket_keeps_what_the_first_machine_pushed(bucket, tmp_path, office):
    """One pushes, another takes; what is there already stays; objects can be listed and removed."""
    remotes = {"bucket": RemoteSettings(url=bucket, push=True)}
    own = StoreSettings(remotes=remotes, signing_key=tmp_path / "office.pem")
    one = Machine(tmp_path / "one", own)
    two = Machine(
        tmp_path / "two",
        StoreSettings(remotes=remotes, trusted_keys={"office": office.public}).model_copy(
            update={"remotes": {"bucket": RemoteSettings(url=bucket)}}
        ),
    )
    one.remotes.push(made(one))
    artifact = two.fetched()
    assert artifact is not None
    assert (artifact.folder / "_C.so").read_text() == "machine code"
    # Written on condition that nothing is there.
    other = Machine(tmp_path / "other", own)
    changed = making.keep(other.store, KIND, KEY, files={"_C.so": "other code"})
    remote = other.remotes.remote("bucket")
    assert not other.remotes.push_to(remote, changed)
    three = Machine(tmp_path / "three", two.settings)
    assert (three.fetched().folder / "_C.so").read_text() == "machine code"
    ((kind, key, listed),) = remote.listed()
    assert (kind, key) == (KIND, KEY)
    remote.objects.delete([listed.name])
    assert list(remote.listed()) == []
    assert one.notices() + two.notices() + three.notices() == []


@pytest.mark.servers
def test_bucket_that_forbids_is_said_once_and_fails_nothing(bucket, tmp_path, office):
    """A bucket that is not there is like a server that is not: the build goes on."""
    remotes = {"bucket": RemoteSettings(url=bucket.replace("wheels/", "nobody/"), push=True)}
    one = Machine(tmp_path / "one", StoreSettings(remotes=remotes, signing_key=tmp_path / "office.pem"))
    used = one.remotes
    used.push(made(one))
    used.push(made(one, "c2"))
    assert len(one.notices()) == 1
