"""What a check is, and how one is carried out; the checks themselves are tables in other modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vllm_wheels.core.errors import (
    CannotVerifyError,
    MachineError,
    NetworkError,
    StepTimeoutError,
    UnsupportedPythonError,
    VllmWheelsError,
)
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.report import Finding, Severity, Verdict

UNJUDGEABLE = (CannotVerifyError, MachineError, NetworkError, UnsupportedPythonError, StepTimeoutError)
"""Errors that say something about this machine or its network, and nothing about the wheel."""

SLOW_REMEDY = "raise smoke.timeout_seconds, or see in smoke.log what hangs"

Subject = TypeVar("Subject")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a check says; the fields are those of a Finding. A severity stands in place of the check's own."""

    verdict: Verdict
    line: str
    evidence: str = ""
    remedy: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    severity: Severity | None = None


@dataclass(frozen=True, kw_only=True)
class Premises:
    """What is known of a test run before there is a wheel to try.

    Attributes:
        settings: of the user.
        left_out: requirements that are not installed on purpose, by normalised name.
        floor: flags of /proc/cpuinfo without which the wheel need not load.
    """

    settings: Settings
    left_out: tuple[str, ...]
    floor: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Check(Generic[Subject]):
    """One thing that is looked at.

    Attributes:
        name: identifier, never changed once published.
        title: what is done, in the imperative.
        commands: what it starts, in a plan; a function where that depends on the user's settings.
        judge: looks at the subject; errors of ``UNJUDGEABLE`` leave the question open.
        severity: does a conviction forbid a release.
        needs: checks that must have passed, or this one would say nothing new.
        seconds: estimate.
    """

    name: str
    title: str
    judge: Callable[[Subject], Judgement]
    severity: Severity = "error"
    needs: tuple[str, ...] = ()
    seconds: float | None = None
    commands: tuple[Invocation, ...] | Callable[[Premises], tuple[Invocation, ...]] = ()

    def planned(self, premises: Premises) -> tuple[Invocation, ...]:
        """The commands that it starts."""
        return self.commands(premises) if callable(self.commands) else self.commands


def passed(line: str, *, evidence: str = "", **measures: float) -> Judgement:
    """Nothing is wrong."""
    return Judgement(verdict="passed", line=line, evidence=evidence, measures=measures)


def convicted(
    line: str, *, remedy: str, evidence: str = "", severity: Severity | None = None, **measures: float
) -> Judgement:
    """Something is wrong, with what to do about it."""
    return Judgement(
        verdict="convicted", line=line, evidence=evidence, remedy=remedy, severity=severity, measures=measures
    )


def skipped(line: str) -> Judgement:
    """There is nothing to look at, for the reason in the line."""
    return Judgement(verdict="skipped", line=line)


def carry_out(check: Check[Subject], subject: Subject, *, earlier: Iterable[Finding]) -> Finding:
    """Carries out one check, or skips it where a check that it needs has not passed."""
    good = {finding.check for finding in earlier if finding.verdict == "passed"}
    missing = [name for name in check.needs if name not in good]
    judgement = _not_tried(missing) if missing else _judged(check, subject)
    return Finding(
        check=check.name,
        severity=judgement.severity or check.severity,
        verdict=judgement.verdict,
        line=judgement.line,
        evidence=judgement.evidence,
        remedy=judgement.remedy,
        measures=judgement.measures,
    )


def _judged(check: Check[Subject], subject: Subject) -> Judgement:
    try:
        return check.judge(subject)
    except UNJUDGEABLE as error:
        return left_open(error)


def _not_tried(missing: Iterable[str]) -> Judgement:
    return Judgement(verdict="skipped", line=f"not tried, because this did not pass: {', '.join(missing)}")


def left_open(error: VllmWheelsError) -> Judgement:
    """What an error of ``UNJUDGEABLE`` means for a check."""
    # A process that ran too long was stopped by the runner, which knows only the limit of a compile.
    remedy = SLOW_REMEDY if isinstance(error, StepTimeoutError) else error.remedy
    return Judgement(verdict="could-not-judge", line=f"{error.what}: {error.why}", evidence=str(error), remedy=remedy)
