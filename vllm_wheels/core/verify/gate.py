"""Decides whether a report lets a wheel be released."""

from __future__ import annotations

from vllm_wheels.core.errors import CannotVerifyError, VerificationError
from vllm_wheels.core.verify.report import Report


def require_passed(report: Report, *, sha256: str) -> None:
    """Lets a wheel of the hash ``sha256`` through only if the report is of it and has passed.

    Raises:
        VerificationError: the report convicts the wheel.
        CannotVerifyError: the report is of another file, or came to no verdict.
    """
    if report.sha256 != sha256:
        what = f"the report of {report.wheel} does not speak of this wheel"
        why = f"it is of sha256 {report.sha256[:12]}, the wheel has {sha256[:12]}"
        raise CannotVerifyError(what, why=why, remedy="verify the wheel again")
    if convicted := report.of_verdict("convicted"):
        what = f"{report.wheel} is not what it claims to be"
        why = "; ".join(f"{each.check}: {each.line}" for each in convicted)
        raise VerificationError(what, why=why, remedy=convicted[0].remedy)
    require_verdict(report)


def require_verdict(report: Report) -> None:
    """Refuses a report in which something could not be judged and nothing convicts.

    Raises:
        CannotVerifyError: there is no verdict; the next verification may come to one.
    """
    if report.verdict != "could-not-judge":
        return
    open_ones = report.of_verdict("could-not-judge")
    what = f"{report.wheel} could not be verified on Python {report.python}"
    why = "; ".join(f"{each.check}: {each.line}" for each in open_ones) or "no check was carried out"
    remedy = open_ones[0].remedy if open_ones else "verify the wheel again"
    raise CannotVerifyError(what, why=why, remedy=remedy)
