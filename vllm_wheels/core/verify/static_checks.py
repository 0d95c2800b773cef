"""Looks through a wheel that lies on the table: all checks that install and execute nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from vllm_wheels.core.verify.checks import carry_out
from vllm_wheels.core.verify.composition import dissect
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.report import Finding, Report
from vllm_wheels.core.verify.static import STATIC
from vllm_wheels.core.verify.unpacked import UnpackedWheel


def look(unpacked: UnpackedWheel, *, on_finding: Callable[[Finding], None] | None = None) -> tuple[Finding, ...]:
    """Carries out the static checks in order and tells of each finding as it is made."""
    findings: list[Finding] = []
    for check in STATIC:
        finding = carry_out(check, unpacked, earlier=findings)
        findings.append(finding)
        if on_finding:
            on_finding(finding)
    return tuple(findings)


def report_on(
    unpacked: UnpackedWheel,
    findings: tuple[Finding, ...] = (),
    *,
    python: str | None = None,
    location: TestLocation | None = None,
) -> Report:
    """A report that begins with these findings; its clock starts now."""
    return Report(
        wheel=unpacked.path.name,
        sha256=unpacked.sha256,
        distribution=unpacked.distribution,
        version=unpacked.version,
        python=python,
        location=location,
        findings=findings,
        started=time.time(),
        seconds=0.0,
        variant=unpacked.variant.name if unpacked.variant else None,
        claims=unpacked.claims,
        composition=dissect(unpacked.path, unpacked.scan),
    )
