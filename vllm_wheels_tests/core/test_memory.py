"""Within one run nobody outside is asked the same twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from vllm_wheels.core.artifacts import source
from vllm_wheels.core.engine import run_cache as memory
from vllm_wheels.core.engine.builder import Command
from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.run_cache import Memory, current, remembering
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.fixtures.building import PYTHON

TARGET = Target(release="0.32.0", python="3.11", variant="baseline")
OTHERS = {
    "variant": Target(release="0.32.0", python="3.11", variant="avx512"),
    "python": Target(release="0.32.0", python="3.12", variant="baseline"),
    "release": Target(release="0.31.0", python="3.11", variant="baseline"),
}


class Asked:
    """Draws plans up and counts how often."""

    def __init__(self, unknown: tuple[str, ...] = ()) -> None:
        self.times = 0
        self.unknown = unknown

    def __call__(self) -> Plan:
        self.times += 1
        return Plan(artifact="artifact", target=TARGET, inputs={"asked": self.times}, steps=(), unknown=self.unknown)


@pytest.mark.parametrize("kind", list(memory.REACH))
@pytest.mark.parametrize("other", list(OTHERS))
def test_targets_that_differ_in_nothing_that_counts_share_an_answer(kind, other):
    """The index is asked once for five variants, and for each Python where the Python counts."""
    known, asked = Memory(), Asked()
    plans = [known.plan(kind, target, asked) for target in (TARGET, OTHERS[other])]
    counts = other in memory.REACH[kind]
    assert asked.times == (2 if counts else 1)
    assert [plan.target for plan in plans] == [TARGET.shared(), OTHERS[other].shared()]


def test_plan_that_nobody_outside_is_asked_for_is_drawn_up_each_time():
    """What depends on artifacts that were made meanwhile is thought through again."""
    known, asked = Memory(), Asked()
    assert [known.plan("wheel", TARGET, asked).inputs["asked"] for _ in range(2)] == [1, 2]


def test_answer_that_lacks_something_is_asked_for_again():
    """Once the source is there, the environment that it demands is looked up."""
    known = Memory()
    assert known.plan("torch_env", TARGET, Asked(unknown=("source",))).unknown == ("source",)
    assert known.plan("torch_env", TARGET, Asked()).unknown == ()


def test_threads_that_ask_the_same_wait_for_one_answer():
    """A look at many partitions asks a server once, from however many threads."""
    known, asked, both = Memory(), Asked(), Event()

    def slow() -> Plan:
        both.wait(10)
        return asked()

    with ThreadPoolExecutor(2) as threads:
        plans = [threads.submit(known.plan, "source", TARGET, slow) for _ in range(2)]
        both.set()
    assert [plan.result().inputs["asked"] for plan in plans] == [1, 1]


def test_run_within_a_run_shares_its_memory():
    """What a command asked for its plan, the build that follows does not ask again."""
    with remembering():
        outer = current()
        with remembering():
            assert current() is outer
    assert current() is not outer


def test_plan_and_build_of_one_command_ask_for_the_source_once(built, monkeypatch):
    """A build makes what its plan showed, without another look at the index."""
    asked = []
    draw_up = source.plan
    monkeypatch.setattr(source, "plan", lambda *arguments: asked.append(arguments) or draw_up(*arguments))
    target = Target(release="0.32.0", python=PYTHON, variant="baseline")
    with remembering():
        for _ in range(2):
            assert all(artifact for _, artifact in BuildGraph(settings=load(), say=print).plans("wheel", target))
        BuildGraph(settings=load(), say=print).ensure("wheel", target)
    assert len(asked) == 1


def test_compiler_is_heard_although_the_plan_asked_for_it_quietly(built):
    """The display follows the compiler, also where drawing up the plan had already looked which one there is."""
    heard: list[str] = []
    with remembering():
        quiet = BuildGraph(settings=load(), say=print).builder
        loud = BuildGraph(settings=load(), say=print, echo=heard.append)
        loud.builder.run(Command(argv=["echo", "[1/2] Building"], env={}, cwd="/", mounts=()))
        assert BuildGraph(settings=load(), say=print).builder is quiet
    assert heard == ["[1/2] Building"]
