"""Decides whether reports let a wheel be released."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from vllm_wheels.core.errors import CannotVerifyError, IncompleteReleaseError, VerificationError
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.unpacked import claimed


class OpenVerdictError(CannotVerifyError):
    """A report came to no verdict; it is handed on here, since nobody keeps it and the next run tries again."""

    def __init__(self, report: Report) -> None:
        open_ones = report.of_verdict("could-not-judge")
        why = "; ".join(f"{each.check}: {each.line}" for each in open_ones) or "no check was carried out"
        remedy = open_ones[0].remedy if open_ones else "verify the wheel again"
        super().__init__(f"{report.wheel} could not be verified {report.scope}", why=why, remedy=remedy)
        self.report = report

    def __reduce__(self) -> tuple[Callable[..., OpenVerdictError], tuple[Report]]:
        return type(self), (self.report,)


@dataclass(frozen=True, kw_only=True)
class TestCoverage:
    """The Pythons on which a wheel was verified before its release."""

    pythons: tuple[str, ...]  # those with a report that has passed
    # Those that the wheel claims and this installation cannot provide, each with the reason
    without: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        tried = f"tried on Python {', '.join(self.pythons)}"
        missing = "; ".join(f"not on {python} ({why})" for python, why in self.without)
        return f"{tried}; {missing}" if missing else tried


def coverage(
    wheel: Path, reports: Sequence[Report], *, obstacle: Callable[[str], str | None], required: Sequence[str] = ()
) -> TestCoverage:
    """Lets a wheel through only with a passed report of exactly its bytes on every Python that it claims.

    A report of another file or without installation speaks for nothing. ``obstacle`` says in one line why this
    installation cannot try the wheel on a Python (``places.Places.obstacle``), which excuses all but the required ones.

    Raises:
        VerificationError: a report convicts the wheel.
        CannotVerifyError: a report came to no verdict.
        IncompleteReleaseError: a Python that could have been tried, or is required, has no report.
    """
    sha256 = sha256_of(wheel)
    found = {each.python: each for each in reports if each.sha256 == sha256 and each.python}
    for report in found.values():
        require_passed(report, sha256=sha256)
    wanted = dict.fromkeys((*required, *claimed(WheelFile.read(wheel))))
    reasons = {python: None if python in required else obstacle(python) for python in wanted if python not in found}
    untried = [python for python, why in reasons.items() if why is None]
    if untried or not found:
        first = (untried or [*reasons] or ["3.11"])[0]
        what = f"{wheel.name} has not passed on Python {', '.join(untried) or 'any version'}"
        because = "; ".join(f"{python}: {why}" for python, why in reasons.items() if why)
        why = f"there is no report of sha256 {sha256[:12]} on it{f' ({because})' if because and not untried else ''}"
        remedy = f"vllm-wheels build --python-version {first}, or name only the others in publish.required_pythons"
        raise IncompleteReleaseError(what, why=why, remedy=remedy)
    without = tuple((python, why) for python, why in reasons.items() if why)
    return TestCoverage(pythons=tuple(sorted(found, key=Version)), without=without)


def require_passed(report: Report, *, sha256: str) -> None:
    """Lets a wheel of the hash ``sha256`` through only if the report is of it, of an installation, and has passed."""
    if report.sha256 != sha256:
        what = f"the report of {report.wheel} does not speak of this wheel"
        why = f"it is of sha256 {report.sha256[:12]}, the wheel has {sha256[:12]}"
        raise CannotVerifyError(what, why=why, remedy="verify the wheel again")
    require_unconvicted(report)
    if report.python is None:
        what = f"{report.wheel} has not been tried"
        raise CannotVerifyError(what, why="nothing was installed", remedy="verify the wheel without --no-install")
    require_verdict(report)


def require_unconvicted(report: Report) -> None:
    """Refuses a report that convicts, with all its convictions."""
    if convicted := report.of_verdict("convicted"):
        what = f"{report.wheel} is not what it claims to be"
        why = "; ".join(f"{each.check}: {each.line}" for each in convicted)
        raise VerificationError(what, why=why, remedy=convicted[0].remedy)


def require_verdict(report: Report) -> None:
    """Refuses a report in which something could not be judged and nothing convicts."""
    if report.verdict == "could-not-judge":
        raise OpenVerdictError(report)
