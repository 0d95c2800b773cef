"""What a build shows while it runs."""

from __future__ import annotations

import pytest

from vllm_wheels.core.artifacts.compiled.planning import Compiling, Folders, run
from vllm_wheels.core.engine.plan import Plan, Step
from vllm_wheels.core.operations.progress import Cell, Progress, coldness, left
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.making import artifact

TARGET = Target(release="0.32.0", python="3.11", variant="avx512")
SHARED = TARGET.shared()
ESTIMATES = {("source", SHARED): 10.0, ("compiled", TARGET): 100.0, ("wheel", TARGET): 5.0}


class Watch:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


@pytest.fixture
def clock() -> Watch:
    """Of the progress."""
    return Watch()


@pytest.fixture
def progress(clock) -> Progress:
    """Of one wheel of which nothing is made yet."""
    return Progress(estimates=ESTIMATES, now=clock)


def plan(kind: str, target: Target, *steps: Step) -> Plan:
    """A plan of an artifact."""
    return Plan(artifact=kind, target=target, inputs={}, steps=steps)


def compiling(build: str) -> Compiling:
    """The arguments of a compile in a build folder."""
    folders = Folders(build=build, onednn="", env="", cache="")
    return Compiling(folders=folders, python="3.11", timeout_seconds=1.0, same_toolchain={}, deviations=())


def test_only_planned_stages_are_shown(progress):
    """A build that is not verified has no column for it."""
    assert progress.stages() == ["prepare", "compile", "wheel"]


def test_stage_that_the_store_had_is_kept(progress, tmp_path):
    """What was not made now is told apart from what was."""
    progress.ready(SHARED, artifact("source", tmp_path), made=False)
    assert progress.cell("prepare", TARGET) == Cell(state="kept")


def test_made_artifact_stays_made_when_a_later_step_finds_it(progress, tmp_path):
    """The next asset takes it from the store, but this build made it."""
    progress.begun(plan("source", SHARED))
    progress.ready(SHARED, artifact("source", tmp_path), made=True)
    progress.ready(SHARED, artifact("source", tmp_path), made=False)
    assert progress.cell("prepare", TARGET) == Cell(state="done")


def test_compiler_counter_is_shown_in_its_stage(progress):
    """[n/m] of ninja moves the stage."""
    progress.begun(plan("compiled", TARGET))
    progress.line("[120/430] Building CXX object x.o")
    assert progress.cell("compile", TARGET) == Cell(state="working", counter=(120, 430))
    assert progress.cell("wheel", TARGET) == Cell(state="waiting")


def test_remaining_time_shrinks_with_what_is_done(progress, clock, tmp_path):
    """What is finished is no longer waited for."""
    before = progress.remaining()
    progress.begun(plan("source", SHARED))
    clock.seconds = 4
    progress.ready(SHARED, artifact("source", tmp_path), made=True)
    assert (before, progress.remaining(), progress.elapsed()) == (115.0, 105.0, 4.0)


def test_time_of_a_wheel_is_that_of_its_own_artifacts(progress, clock, tmp_path):
    """The shared source is not counted as time of the variant."""
    progress.begun(plan("source", SHARED))
    clock.seconds = 4
    progress.ready(SHARED, artifact("source", tmp_path), made=True)
    progress.begun(plan("compiled", TARGET))
    clock.seconds = 10
    assert progress.spent(TARGET) == 6.0


def test_hit_rate_counts_the_compile_that_goes_on(progress, tmp_path):
    """The cache's statistics are read while the compiler runs."""
    (tmp_path / "ccache.log").write_text("# a.cpp\ndirect_cache_hit\n# b.cpp\ncache_miss\n")
    step = Step(title="compile", action=run, arguments=compiling(str(tmp_path)))
    progress.begun(plan("compiled", TARGET, step))
    assert progress.cache_now() == (1, 1)


@pytest.mark.parametrize(
    ("counter", "seconds"),
    [(None, 70.0), ((0, 100), 70.0), ((10, 100), 150.0), ((25, 100), 90.0), ((60, 100), 20.0)],
    ids=["no counter", "nothing done", "a tenth", "a quarter", "more than half"],
)
def test_estimate_moves_from_past_builds_to_the_compilers_own_speed(counter, seconds):
    """At first past builds are believed, from a quarter on only what is seen."""
    assert left(100.0, 30.0, counter) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("asked", "assumed", "factor"),
    [
        ({"hits": 97, "misses": 3}, 1.0, 0.05),
        ({"hits": 0, "misses": 100}, 1.0, 1.0),
        ({"hits": 50, "misses": 50}, 0.25, 2.0),
        ({"hits": 3, "misses": 0}, 1.0, 1.0),
    ],
    ids=["a warm cache", "a cold one", "colder than last time", "too early to tell"],
)
def test_estimate_follows_the_hits_of_the_compilers_cache(asked, assumed, factor):
    """A build of cache hits is not announced as one of an hour."""
    assert coldness(asked, assumed) == factor
