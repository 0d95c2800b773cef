"""Looks through a wheel that lies on the table: all checks that install and execute nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from vllm_wheels.core.verify.anatomy import dissect
from vllm_wheels.core.verify.checks import carry_out
from vllm_wheels.core.verify.report import Finding, Report
from vllm_wheels.core.verify.specimen import Specimen
from vllm_wheels.core.verify.static import STATIC
from vllm_wheels.core.verify.venue import Venue


def look(specimen: Specimen, *, on_finding: Callable[[Finding], None] | None = None) -> tuple[Finding, ...]:
    """Carries out the static checks in order and tells of each finding as it is made."""
    findings: list[Finding] = []
    for check in STATIC:
        finding = carry_out(check, specimen, earlier=findings)
        findings.append(finding)
        if on_finding:
            on_finding(finding)
    return tuple(findings)


def report_on(
    specimen: Specimen, findings: tuple[Finding, ...] = (), *, python: str | None = None, venue: Venue | None = None
) -> Report:
    """A report that begins with these findings; its clock starts now."""
    return Report(
        wheel=specimen.path.name,
        sha256=specimen.sha256,
        distribution=specimen.distribution,
        version=specimen.version,
        python=python,
        venue=venue,
        findings=findings,
        started=time.time(),
        seconds=0.0,
        variant=specimen.variant.name if specimen.variant else None,
        claims=specimen.claims,
        anatomy=dissect(specimen.path, specimen.scan),
    )
