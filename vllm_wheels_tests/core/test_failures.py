"""What failed is not tried again in vain."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from vllm_wheels.core.engine import failures as module
from vllm_wheels.core.engine.failures import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Failures
from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.engine.plan import Plan, Step
from vllm_wheels.core.engine.rule import Rule, Scope
from vllm_wheels.core.errors import BuildError, FailedBeforeError, NetworkError
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target

TARGET = Target(release="0.32.0", python="3.12", variant="avx512")


class Factory:
    """A kind of artifact whose making fails as long as a test wants it to."""

    def __init__(self, folder, *, slot="compile"):
        self.error, self.inputs, self.attempts = BuildError("it broke", why="line 3", remedy="mend it"), 1, 0
        self.settings = Settings(state_folder=folder)
        self.rule = Rule(kind="compiled", title="", scope=Scope.VARIANT, plan=self.plan, slot=slot)

    def plan(self, _context):
        step = Step(title="try", action=self.act, arguments=None)
        return Plan(artifact="compiled", target=TARGET, inputs={"n": self.inputs}, steps=(step,))

    def act(self, _context, _arguments):
        self.attempts += 1
        if self.error:
            raise self.error

    def make(self, **wishes):
        """A command's, or a run's, attempt."""
        builds = BuildGraph(
            settings=self.settings, rules={"compiled": self.rule}, builders=None, say=lambda _: None, **wishes
        )
        return builds.ensure("compiled", TARGET)

    def fail(self, error, **wishes):
        with pytest.raises(error) as caught:
            self.make(**wishes)
        return caught.value


@pytest.fixture
def factory(tmp_path):
    return Factory(tmp_path)


def test_same_compile_is_not_tried_twice(factory):
    """Whoever builds again what failed is told at once when and why, and how to insist."""
    factory.fail(BuildError)
    error = factory.fail(FailedBeforeError)
    assert factory.attempts == 1
    assert "it broke (line 3)" in error.why
    assert "--retry" in error.remedy


def test_person_may_insist(factory):
    """With --retry the same is tried again; once it is made, nothing is held against it."""
    factory.fail(BuildError)
    factory.error = None
    factory.make(retry=True)
    assert factory.attempts == 2
    assert list(Failures(factory.settings.state_folder / "failures").all()) == []


def test_moved_input_is_reason_enough(factory):
    """A change that could help is tried without asking."""
    factory.fail(BuildError)
    factory.inputs = 2
    factory.fail(BuildError)
    assert factory.attempts == 2


def test_person_is_not_held_up_by_a_fault_that_may_pass(factory):
    """Where the network was down, typing the command again is enough; what runs by itself waits a while."""
    factory.error = NetworkError("no answer", why="down", remedy="wait")
    factory.fail(NetworkError)
    factory.fail(NetworkError)
    factory.fail(FailedBeforeError, automatic=True)
    assert factory.attempts == 2


def test_cheap_attempts_are_refused_only_to_what_runs_by_itself(tmp_path):
    """What takes seconds may fail as often as I type it."""
    factory = Factory(tmp_path, slot=None)
    factory.fail(BuildError)
    factory.fail(BuildError)
    factory.fail(FailedBeforeError, automatic=True)


def test_conviction_stays_while_the_artifact_does(factory):
    """A report that is found in the store again convicts as it did before; another one does not."""
    factory.error = None
    made, failures = factory.make(), Failures(factory.settings.state_folder / "failures")
    failures.note("compiled", TARGET, made.key, BuildError("bad", why="size", remedy=""), convicted=True)
    factory.make()
    assert failures.find("compiled", TARGET) is not None
    factory.inputs = 2
    factory.make()
    assert failures.find("compiled", TARGET) is None


def test_pause_doubles_up_to_a_week(factory):
    """A server that is down for long is asked less and less often, but never given up."""
    factory.error = NetworkError("no answer", why="down", remedy="wait")
    factory.fail(NetworkError)
    (failure,) = Failures(factory.settings.state_folder / "failures").of(TARGET.partition)
    assert failure.due == failure.last + FIRST_PAUSE_SECONDS
    assert failure.stands(failure.last)
    assert not failure.stands(failure.due)
    assert replace(failure, attempts=3).due == failure.last + 4 * FIRST_PAUSE_SECONDS
    assert replace(failure, attempts=99).due == failure.last + LONGEST_PAUSE_SECONDS


def test_attempts_in_a_row_are_counted(factory, monkeypatch):
    """A failure tells since when it lasts."""
    times = iter((100.0, 200.0))
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: next(times)))
    failures = Failures(factory.settings.state_folder / "failures")
    for _ in range(2):
        failures.note("compiled", TARGET, "key", factory.error)
    found = failures.find("compiled", TARGET)
    assert (found.attempts, found.first, found.last) == (2, 100.0, 200.0)
