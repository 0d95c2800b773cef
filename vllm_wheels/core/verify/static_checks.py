"""Runs all checks that look at an unpacked wheel without installing it."""

import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from vllm_wheels.core.host.machine import cores
from vllm_wheels.core.texts import shown_line
from vllm_wheels.core.verify.checks import Check, listed, run_check
from vllm_wheels.core.verify.composition import composition_of
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.static import (
    abi,
    archive,
    binaries,
    commands,
    contents,
    described,
    grafted,
    guard,
    index,
    licence,
    machine_code,
    names,
    operators,
    platform,
    preloads,
    provenance,
    record,
    requirements,
    sbom,
    startup,
    syntax,
    torch,
)
from vllm_wheels.core.verify.unpacked import UnpackedWheel

STATIC: tuple[Check[UnpackedWheel], ...] = listed(
    names,
    archive,
    record,
    contents,
    startup,
    described,
    licence,
    index,
    torch,
    requirements,
    commands,
    platform,
    abi,
    binaries,
    grafted,
    machine_code,
    guard,
    operators,
    syntax,
    sbom,
    preloads,
    provenance,
)
"""In the order in which a report lists them."""


GENERAL = frozenset(
    {
        *("names-agree", "tags-agree", "wheel-version", "zip-structure", "file-modes", "record", "portable-paths"),
        *("runs-at-start", "secrets", "installer-files", "metadata-valid", "description-renders", "requires-python"),
        *("stable-abi", "build-paths", "search-paths", "memory-protection", "python-compiles"),
    }
)
"""Checks that hold for any wheel, of vLLM or not."""


def run_static_checks(
    unpacked: UnpackedWheel,
    *,
    only: Collection[str] | None = None,
    kept: Mapping[str, Finding] | None = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> tuple[Finding, ...]:
    """Runs the static checks, and gives their findings in order; those that start programs run beside the others.

    A check whose finding is ``kept`` is not run; ``only`` names those that are wanted, where it is not all.
    """
    wanted = [check for check in STATIC if only is None or check.name in only]
    known = dict(kept or {})
    findings: list[Finding] = []
    with uncollected(), ThreadPoolExecutor(cores()) as pool:
        # Where these wait for their programs, the others go on.
        started = {
            check.name: pool.submit(run_check, check, unpacked, earlier=())
            for check in wanted
            if check.commands and not check.needs and check.name not in known
        }
        for check in wanted:
            if check.name in started:
                known[check.name] = started[check.name].result()
            finding = known.get(check.name) or run_check(check, unpacked, earlier=findings)
            findings.append(finding)
            if on_finding:
                on_finding(finding)
    return tuple(findings)


@contextmanager
def uncollected() -> Iterator[None]:
    """Collects no cycles meanwhile: parsed code is millions of objects, and to look through them is half the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def report_on(
    unpacked: UnpackedWheel,
    findings: tuple[Finding, ...] = (),
    *,
    python: str | None = None,
    location: TestLocation | None = None,
) -> Report:
    """Begins the report on a wheel; its duration counts from now."""
    return Report(
        wheel=shown_line(unpacked.path.name),
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
        composition=composition_of(unpacked.path, unpacked.scan),
    )
