"""Defines a check and runs one; the checks themselves are in tables of other modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from vllm_wheels.core.errors import (
    CannotVerifyError,
    MachineError,
    NetworkError,
    StepTimeoutError,
    UnsupportedPythonError,
    VllmWheelsError,
)
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.verify.finding import Finding, Outcome, Severity, Verdict

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

UNJUDGEABLE = (CannotVerifyError, MachineError, NetworkError, UnsupportedPythonError, StepTimeoutError)
"""Errors of this machine or its network, which say nothing about the wheel."""

SLOW_REMEDY = "raise smoke.timeout_seconds, or see in smoke.log what hangs"

METADATA_VALID = "metadata-valid"
"""Name of the check that METADATA is valid; others need it."""

Subject = TypeVar("Subject")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The outcome of a check; its fields are those of a Finding. A severity here overrides the check's own."""

    verdict: Verdict
    line: str
    evidence: str = ""
    remedy: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    severity: Severity | None = None
    outcomes: tuple[Outcome, ...] = ()

    def of(self, check: str, severity: Severity) -> Finding:
        """The finding of the check that came to this."""
        return Finding(**{**vars(self), "check": check, "severity": self.severity or severity})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the commands of a test run depend on; known before the wheel is built."""

    settings: Settings
    left_out: tuple[str, ...]  # requirements that are not installed on purpose, by normalised name
    floor: tuple[str, ...]  # flags of /proc/cpuinfo without which the wheel need not load


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """One question about a wheel."""

    name: str  # identifier, never changed once published
    title: str  # what is done, in the imperative
    # Answers the question about the subject; errors of ``UNJUDGEABLE`` leave it open
    judge: Callable[[Subject], Judgement]
    _: KW_ONLY
    severity: Severity = "error"
    needs: tuple[str, ...] = ()  # checks that must have passed, or this one would say nothing new
    seconds: float | None = None
    # What it starts, in a plan; a function where that depends on the user's settings
    commands: tuple[Invocation, ...] | Callable[[RunOptions], tuple[Invocation, ...]] = ()
    inputs: tuple[str, ...] = ()  # what decides the verdict beside the wheel itself, by name in ``parts.Inputs``
    tools: tuple[str, ...] = ("packaging",)  # distributions whose versions decide the verdict
    # Modules whose code decides the verdict, with all that they import; ``listed`` adds the check's own
    code: tuple[str, ...] = ()
    # False where the verdict depends on the present answer of a server, so that no earlier one is reused
    lasting: bool = True

    def planned(self, options: RunOptions) -> tuple[Invocation, ...]:
        """The commands that it starts."""
        return self.commands(options) if callable(self.commands) else self.commands


class ModuleOfChecks(Protocol[Subject]):
    """A module with a table of checks."""

    @property
    def __name__(self) -> str: ...

    @property
    def CHECKS(self) -> tuple[Check[Subject], ...]:  # noqa: N802 - a constant of the module
        """Its table."""


def listed(*modules: ModuleOfChecks[Subject]) -> tuple[Check[Subject], ...]:
    """The checks of some modules in order, each with its module added to its ``code``."""
    return tuple(replace(check, code=(module.__name__, *check.code)) for module in modules for check in module.CHECKS)


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


def convicted_of(faults: Sequence[str], *, remedy: str, before: str = "") -> Judgement:
    """Something is wrong: the line has the first fault and how many more there are, the evidence all of them."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return convicted(f"{before}{faults[0]}{more}", evidence="\n".join(faults), remedy=remedy)


def skipped(line: str) -> Judgement:
    """The check does not apply to this wheel, for the reason in the line."""
    return Judgement(verdict="skipped", line=line)


def run_check(check: Check[Subject], subject: Subject, *, earlier: Iterable[Finding]) -> Finding:
    """Runs one check, or skips it where a check that it needs has not passed."""
    if missing := missing_needs(check, earlier):
        return skipped(f"not tried, because this did not pass: {', '.join(missing)}").of(check.name, check.severity)
    return _judged(check, subject).of(check.name, check.severity)


def missing_needs(check: Check[Subject], earlier: Iterable[Finding]) -> list[str]:
    """The checks that must pass before this one can run, and have not."""
    good = {finding.check for finding in earlier if finding.verdict == "passed"}
    return [name for name in check.needs if name not in good]


def _judged(check: Check[Subject], subject: Subject) -> Judgement:
    try:
        return check.judge(subject)
    except UNJUDGEABLE as error:
        return not_judged(error)
    except Exception as error:  # noqa: BLE001 - a wheel that one check stumbles over is judged by all others
        return not_judged(_stumbled(check.name, error))


def _stumbled(name: str, error: Exception) -> CannotVerifyError:
    what = f"the check {name} stumbled over this wheel"
    why = f"{type(error).__name__}: {str(error) or 'it says no more'}"
    return CannotVerifyError(what, why=why, remedy="report it with the wheel: this is a defect of vllm-wheels")


def not_judged(error: VllmWheelsError) -> Judgement:
    """The judgement for an error of ``UNJUDGEABLE``, which kept the check from finishing."""
    # A process that ran too long was stopped by the runner, which knows only the limit of a compile.
    remedy = SLOW_REMEDY if isinstance(error, StepTimeoutError) else error.remedy
    return Judgement(verdict="could-not-judge", line=f"{error.what}: {error.why}", evidence=str(error), remedy=remedy)
