"""The faults of publishing: what happens the first time; what stays so through the rerun is put right by then."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from vllm_wheels.core.publish import receipt as receipts
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels_tests.faults.world import World

NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Fault:
    """One thing that breaks.

    Attributes:
        what: for the table.
        inject: breaks it, runs once, puts right what a rerun cannot, and tells how the run ended.
        process: whether the command itself is run, which takes seconds: on demand only.
    """

    what: str
    inject: Callable[[World], str]
    process: bool = False


def answers(*faults: str) -> Callable[[World], str]:
    def inject(world: World) -> str:
        world.front.faults = list(faults)
        return world.publish()

    return inject


def before(*faults: str) -> Callable[[World], str]:
    def inject(world: World) -> str:
        world.front.knock_faults = list(faults)
        return world.publish()

    return inject


def variables(**poison: str) -> Callable[[World], str]:
    return lambda world: world.run(**poison)


def down(world: World) -> str:
    world.desk.changes = {"patience_seconds": 30.0}
    world.front.faults = ["500"] * 40
    said = world.publish()
    world.front.faults = []
    return said


def stale(world: World) -> str:
    world.desk.prepare()
    world.front.stale = 8
    return world.publish()


def stays_stale(world: World) -> str:
    world.desk.changes = {"settle_seconds": 5.0}
    world.desk.prepare()
    world.front.stale = 10_000
    first = world.publish()
    second = world.publish()
    world.front.stale = 0
    assert len(world.front.accepted) <= 1, f"sent twice: {world.front.accepted}; {first}; {second}"
    return f"{first}; the rerun too: {second.partition(':')[0]}"


def shows_a_page_of_html(world: World) -> str:
    world.front.portal = True
    said = world.publish()
    world.front.portal = False
    assert world.front.uploads == [], "something was sent on the strength of it"
    return said


def refuses_the_flagship(world: World) -> str:
    name = world.desk.wheel("vllm_cpu").name
    world.front.deleted = {name}
    said = world.publish()
    world.front.deleted = set()
    return said


def clock(hours: int) -> Callable[[World], str]:
    def inject(world: World) -> str:
        world.front.clock = timedelta(hours=hours)
        said = world.publish()
        world.front.clock = timedelta()
        assert world.front.uploads == [], "something was sent"
        return said

    return inject


def altered_wheel(world: World) -> str:
    wheel = world.desk.wheel("vllm_cpu")
    sound = wheel.read_bytes()
    wheel.write_bytes(sound + b"\0")
    said = world.publish()
    wheel.write_bytes(sound)
    assert world.front.uploads == [], "something was sent"
    return said


def link_at_receipts(world: World) -> str:
    elsewhere = world.desk.folder / "elsewhere"
    elsewhere.mkdir()
    place = receipts.folder(world.desk.state, "real")
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    said = world.publish()
    assert list(elsewhere.iterdir()) == [], "the link was followed"
    place.unlink()
    return said


def torn_journal(world: World) -> str:
    said = refuses_the_flagship(world)
    journal = Journal(receipts.folder(world.desk.state, "real"))
    with journal.path.open("a") as stream:
        stream.write('{"act": "acc')
    return said


def torn_receipt(world: World) -> str:
    said = refuses_the_flagship(world)
    for path in (world.desk.state / receipts.FOLDER).glob(f"*/*/*.{receipts.RECEIPT}"):
        path.write_text(path.read_text()[:40])
    return said


def lost_state(world: World) -> str:
    said = refuses_the_flagship(world)
    shutil.rmtree(world.desk.state)
    return said


def killed(world: World) -> str:
    return world.killed_at_request()


def killed_by_the_clock(world: World) -> str:
    end = time.monotonic() + world.chance.uniform(0.5, 8)
    return world.killed_when(lambda: time.monotonic() > end)


def terminated(world: World) -> str:
    return world.killed_when(lambda: world.front.uploads, signal.SIGTERM)


def killed_uploader(world: World) -> str:
    world.front.faults = ["hang"]
    process = world.start()
    end = time.monotonic() + 60
    while not (not world.front.faults and world.uploader()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    if number := world.uploader():
        os.kill(number, signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    return "published" if process.returncode == 0 else said.splitlines()[0]


def two_at_once(world: World) -> str:
    processes = [world.start(), world.start()]
    statuses = []
    for process in processes:
        process.communicate(timeout=300)
        statuses.append(process.returncode)
    return f"exit {' and '.join(str(status) for status in sorted(statuses))}"


def inside(*words: str) -> Callable[[World], str]:
    """In a view of the file system in which the state folder is another one."""

    def inject(world: World) -> str:
        world.desk.state.mkdir(exist_ok=True)
        return world.run("bwrap", "--dev-bind", "/", "/", *words, str(world.desk.state))

    return inject


def read_only(world: World) -> str:
    world.desk.state.mkdir(exist_ok=True)
    state = str(world.desk.state)
    return world.run("bwrap", "--dev-bind", "/", "/", "--ro-bind", state, state)


def little_memory(world: World) -> str:
    return world.run("prlimit", "--as=180000000")


def poisoned_module(world: World) -> str:
    folder = world.desk.folder / "poison"
    folder.mkdir()
    (folder / "twine.py").write_text("raise ImportError('poisoned')\n")
    return world.run(PYTHONPATH=str(folder))


PUBLISHING = (
    Fault("the index answers an upload with 429", answers("429")),
    Fault("... with 500, three times", answers("500", "500", "500")),
    Fault("... with 503", answers("503")),
    Fault("the connection is reset while a file is sent", answers("reset")),
    Fault("the index takes no more and answers nothing", answers("hang")),
    Fault("the index takes the file, then the answer is lost", answers("late")),
    Fault("it takes the file, answers are lost three times", answers("late", "late", "late")),
    Fault("it answers 409 to a file that it does not have", answers("409")),
    Fault("it stays down for longer than the patience", down),
    Fault("before the first upload: 503", before("503")),
    Fault("before the first upload: a reset", before("reset")),
    Fault("pages are stale for a while", stale),
    Fault("pages are stale, and stay so through the rerun", stays_stale),
    Fault("a page of HTML with status 200 in place of the index", shows_a_page_of_html),
    Fault("the index refuses the flagship alone", refuses_the_flagship),
    Fault("this machine's clock is two hours back", clock(2)),
    Fault("this machine's clock is two hours ahead", clock(-2)),
    Fault("a wheel is altered after it was verified", altered_wheel),
    Fault("a link stands in place of the receipts' folder", link_at_receipts),
    Fault("half of a release, and the journal is torn", torn_journal),
    Fault("half of a release, and the receipts are torn", torn_receipt),
    Fault("half of a release, and the state folder is lost", lost_state),
    Fault("kill -9 of the command at a random request (1)", killed, process=True),
    Fault("kill -9 of the command at a random request (2)", killed, process=True),
    Fault("kill -9 of the command at a random request (3)", killed, process=True),
    Fault("kill -9 of the command at a random time (1)", killed_by_the_clock, process=True),
    Fault("kill -9 of the command at a random time (2)", killed_by_the_clock, process=True),
    Fault("kill -9 of the uploading process", killed_uploader, process=True),
    Fault("kill of the command after the first file", terminated, process=True),
    Fault("two runs at once", two_at_once, process=True),
    Fault("the disk is full", inside("--size", "65536", "--tmpfs"), process=True),
    Fault("the state folder is read-only", read_only, process=True),
    Fault("memory for little more than Python", little_memory, process=True),
    Fault("a poisoned PYTHONPATH", poisoned_module, process=True),
    Fault("poisoned TWINE_* variables", variables(TWINE_REPOSITORY_URL=NOWHERE, TWINE_USERNAME="x"), process=True),
    Fault("a proxy that does not answer", variables(HTTP_PROXY=NOWHERE, http_proxy=NOWHERE), process=True),
    Fault("certificates that are not there", variables(SSL_CERT_FILE="/nowhere", TWINE_CERT="/nowhere"), process=True),
    Fault("a temporary folder that is not there", variables(TMPDIR="/nowhere"), process=True),
    Fault("PYTHONOPTIMIZE=2, which takes assertions away", variables(PYTHONOPTIMIZE="2"), process=True),
)
"""In the order of the table."""
