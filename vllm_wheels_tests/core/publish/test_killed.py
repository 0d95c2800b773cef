"""Publishing that is killed: the next run brings what is missing, nothing twice, nothing else."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_wheels.core.publish import receipt as receipts
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels_tests.fixtures.building import command

WAIT_SECONDS = 60.0
UPLOADER = b"vllm_wheels.core.publish.uploader"


class Killed(BaseException):
    """Nothing in the program catches it, as nothing catches SIGKILL."""


def killing(real: Callable, *, act: str, after: bool) -> Callable:
    """A function of the journal or of the receipts that ends the run at one of its acts."""

    def write(first, second, *rest, **more):
        hit = second == act or not isinstance(second, str)
        if hit and not after:
            raise Killed
        done = real(first, second, *rest, **more)
        if hit:
            raise Killed
        return done

    return write


POINTS = {
    "the file is announced": (Journal, "write", {"act": "sending", "after": True}),
    "the index has taken the file": (Journal, "write", {"act": "accepted", "after": False}),
    "that is written down": (Journal, "write", {"act": "accepted", "after": True}),
    "the index lists the file": (Journal, "write", {"act": "listed", "after": False}),
    "that is written down, too": (Journal, "write", {"act": "listed", "after": True}),
    "the receipt is written": (receipts, "keep", {"act": "", "after": True}),
}


@pytest.mark.parametrize("point", POINTS)
def test_run_killed_at_any_point_of_the_journal_is_completed(context, front, monkeypatch, point):
    """Wherever it stopped, the next run ends with one upload, the verified bytes, and one receipt."""
    place, name, when = POINTS[point]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, killing(getattr(place, name), **when))
        with pytest.raises(Killed):
            context.publish()
    (receipt,) = context.publish()
    assert front.accepted == list(context.hashes())
    assert front.stored() == receipt.hashes == context.hashes()
    assert list(receipts.receipts(context.state)) == [receipt]


def started(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command("publish", "--yes"), env=environment, stdout=nowhere, stderr=nowhere)


def finished(environment: dict[str, str]) -> str:
    """What the command says on standard error, if it does not end well."""
    done = subprocess.run(
        command("publish", "--yes"), env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    return f"{done.returncode}: {done.stderr}" if done.returncode else ""


def uploaders(state: Path) -> list[int]:
    """Uploading processes that work below a state folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if UPLOADER in words and os.fsencode(state) in words:
            found.append(int(path.parent.name))
    return found


def wait_until(reached: Callable[[], object], *, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_uploading_process_does_not_outlive_the_killed_command(environment, context, front):
    """After kill -9 nobody goes on sending: whoever looks at the index next sees what stays there."""
    front.faults = ["hang"]
    process = started(environment)
    wait_until(lambda: not front.faults and uploaders(context.state))
    process.kill()
    process.wait()
    wait_until(lambda: not uploaders(context.state), seconds=10.0)
    assert front.uploads == []


@pytest.mark.servers
def test_command_killed_at_every_request_converges(environment, context, front):
    """At whichever of its requests the command is killed with -9, the next one completes the release."""
    for point in itertools.count(1):
        shutil.rmtree(context.state, ignore_errors=True)
        for path in front.backend.packages.iterdir():
            path.unlink()
        front.uploads.clear()
        process = started(environment)
        asked = itertools.count(1)
        front.watch = lambda process=process, asked=asked, point=point: next(asked) == point and process.kill()
        status = process.wait(WAIT_SECONDS)
        front.watch = lambda: None
        if status == 0:
            break
        assert status < 0
        assert finished(environment) == "", point
        assert sorted(front.accepted) == sorted(context.hashes()), point
        assert front.stored() == context.hashes()
        assert len(list(receipts.receipts(context.state))) == len(context.variants)
    assert point > 2 * len(context.variants) * 4
