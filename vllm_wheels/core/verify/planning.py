"""Artifact "verification": looks through the finished wheel, tries it in a clean environment and keeps the report."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from vllm_wheels.core.artifacts.torch_env.planning import index_arguments
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step, digest
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.instructions import scan
from vllm_wheels.core.formats.wheel_name import WheelName, wheels_in
from vllm_wheels.core.formats.wheelfile import sha256_of
from vllm_wheels.core.host.commands import STAGE
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.names import distributions
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant, variants
from vllm_wheels.core.verify.behaviour import CHECKS, lacking
from vllm_wheels.core.verify.checks import Premises, carry_out
from vllm_wheels.core.verify.gate import require_verdict
from vllm_wheels.core.verify.install import left_out
from vllm_wheels.core.verify.locations import TestLocation, choose
from vllm_wheels.core.verify.page import as_html
from vllm_wheels.core.verify.report import Finding, Report
from vllm_wheels.core.verify.static import STATIC
from vllm_wheels.core.verify.static_checks import look, report_on
from vllm_wheels.core.verify.test_run import INSTALLS, TEST_RUN, TestRun
from vllm_wheels.core.verify.unpacked import Neighbour, opened

REPORT = "report.json"
PAGE = "report.md"
HTML = "report.html"

TOOLS = ("abi3audit", "auditwheel", "check-wheel-contents", "iced-x86", "packaging", "pydistcheck", "twine")
"""Whose newer versions may come to other findings."""


@dataclass(frozen=True, kw_only=True)
class Trying:
    """How a wheel is tried; the location is None while the wheel is not made.

    Attributes:
        wheel: the file.
        python: version without the micro part.
        left_out: requirements that are not installed on purpose, by normalised name.
        floor: flags of /proc/cpuinfo without which the wheel need not load.
        variant: of the wheel.
        location: where.
        neighbours: wheels of lower variants.
        check: the one to carry out; None for the static ones.
    """

    wheel: str
    python: str
    left_out: tuple[str, ...]
    floor: tuple[str, ...]
    variant: str | None
    location: TestLocation | None = None
    neighbours: tuple[str, ...] = ()
    check: str | None = None


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``verification``: one step per check, so that a dry run shows each.

    Raises:
        CannotVerifyError: the artifact has no wheel, or nothing here can run it.
        MachineError: the builder is needed and cannot work here.
    """
    target, settings = context.target, context.settings
    wheel, torch_env = context.known.get("wheel"), context.known.get("torch_env")
    floor = variant(target.variant).floor if target.variant else ()
    without = left_out(settings, unavailable=torch_env.facts["left_out"] if torch_env else ())
    trying = Trying(
        wheel="<wheel, not made yet>", python=target.python, left_out=without, floor=floor, variant=target.variant
    )
    if wheel is None:
        return Plan(artifact="verification", target=target, inputs={}, steps=_steps(trying, settings))
    path = wheel_of(wheel.folder)
    location = choose(path.name, smoke=settings.smoke, find_builder=context.builder)
    neighbours = tuple(str(found) for found in _lower_variants(target, settings))
    trying = replace(trying, wheel=str(path), location=location, neighbours=neighbours)
    inputs = {
        "python": target.python,
        "location": {"kind": location.kind, **location.identity},
        "left_out": list(without),
        "lacking": list(lacking(floor)),
        # Only a hash: addresses of indexes may hold passwords.
        "index": digest({"arguments": index_arguments(settings, os.environ), "backend": settings.torch.backend}),
        "generate": settings.smoke.generate,
        "tools": {name: installed_version(name) for name in TOOLS},
        "neighbours": [sha256_of(Path(name)) for name in neighbours],
        "torch_requirement": settings.wheel.torch_requirement,
    }
    return Plan(artifact="verification", target=target, inputs=inputs, steps=_steps(trying, settings))


def _lower_variants(target: Target, settings: Settings) -> Iterator[Path]:
    """The newest wheel in the store of each lower variant of the release: of two that are alike the higher one lies."""
    names = list(variants())
    wanted: set[str | None] = set(names[: names.index(target.variant)] if target.variant else ())
    for artifact in Store(settings.state_folder / "store").artifacts("wheel"):
        name = artifact.made_for["variant"]
        if artifact.made_for["release"] == target.release and name in wanted:
            wanted.discard(name)
            yield from wheels_in(artifact.folder)[:1]


def wheel_of(folder: Path) -> Path:
    """The one wheel in an artifact's folder.

    Raises:
        CannotVerifyError: there is none, or more than one.
    """
    found = wheels_in(folder)
    if len(found) == 1:
        return found[0]
    what = f"{folder} does not hold exactly one wheel"
    why = f"found: {', '.join(path.name for path in found) or 'none'}"
    raise CannotVerifyError(what, why=why, remedy="remove that folder and build the wheel again")


def read_report(folder: Path) -> Report:
    """The report in an artifact's folder.

    Raises:
        CannotVerifyError: there is none, or it cannot be read.
    """
    path = folder / REPORT
    try:
        return Report.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        what = f"there is no report {path}"
        raise CannotVerifyError(what, why=str(error), remedy="verify the wheel again") from error


def _steps(trying: Trying, settings: Settings) -> tuple[Step[Any], ...]:
    premises = Premises(settings=settings, left_out=trying.left_out, floor=trying.floor)
    report, folder = f"{STAGE}/{REPORT}", f"{STAGE}/{TEST_RUN}"
    return (
        Step(
            title=f"look through the wheel without installing it ({len(STATIC)} checks)",
            action=run_static_checks,
            arguments=trying,
            reads=(trying.wheel, *trying.neighbours),
            writes=(report,),
            seconds=sum(check.seconds or 0 for check in STATIC),
            invocations=tuple(command for check in STATIC for command in check.planned(premises)),
        ),
        *(
            Step(
                title=check.title,
                action=run_check,
                arguments=replace(trying, check=check.name),
                reads=(trying.wheel, report) if check.name == INSTALLS else (folder, report),
                writes=(report,),
                seconds=check.seconds,
                invocations=check.planned(premises),
            )
            for check in CHECKS
        ),
        Step(
            title="finish the report",
            action=finish,
            arguments=trying.wheel,
            reads=(report,),
            writes=tuple(f"{STAGE}/{name}" for name in (REPORT, PAGE, HTML)),
            seconds=1,
        ),
    )


def run_static_checks(context: ActionContext, trying: Trying) -> None:
    """Carries out the checks that install and execute nothing, and begins the report."""
    tried = _test_run(context, trying)
    neighbours = [_neighbour(Path(name), context.settings) for name in trying.neighbours]
    with opened(
        tried.wheel,
        settings=context.settings,
        runner=context.runner,
        variant=trying.variant,
        neighbours=neighbours,
    ) as unpacked:
        report = report_on(unpacked, python=tried.python, location=tried.location)
        for finding in look(unpacked, on_finding=lambda found: _tell(context, found)):
            report = report.with_finding(finding, now=time.time())
    context.say(f"trying {tried.wheel.name} in: {tried.location.kind} ({tried.location.why})")
    _write(context, report)


def _neighbour(path: Path, settings: Settings) -> Neighbour:
    name = WheelName.parse(path.name).distribution
    known = {configured: variant for variant, configured in distributions(settings).items()}
    found = scan(path)
    return Neighbour(
        name=path.name, distribution=name, variant=known.get(name), code=found.sha256 if found.own else None
    )


def _tell(context: ActionContext, finding: Finding) -> None:
    context.say(f"{finding.verdict}: {finding.check}: {finding.line}")


def run_check(context: ActionContext, trying: Trying) -> None:
    """Carries out one check of the installed wheel."""
    report = read_report(context.stage)
    check = next(each for each in CHECKS if each.name == trying.check)
    test_run = _test_run(context, trying).facing(check, context.invocations)
    finding = carry_out(check, test_run, earlier=report.findings)
    _tell(context, finding)
    _write(context, report.with_finding(finding, now=time.time()))


def finish(context: ActionContext, wheel: str) -> Made:
    """Writes the page and throws the environment away.

    Raises:
        CannotVerifyError: there is no verdict; such a report is not kept, or the next run would not try again.
    """
    report = read_report(context.stage)
    (context.stage / PAGE).write_text(report.as_markdown(), "utf-8")
    (context.stage / HTML).write_text(as_html(report), "utf-8")
    shutil.rmtree(context.stage / TEST_RUN, ignore_errors=True)
    require_verdict(report)
    return Made(
        facts={"verdict": report.verdict, "counts": report.counts, "sha256": sha256_of(Path(wheel))},
        details={
            "location": report.tried_in,
            "seconds": round(report.seconds, 1),
            "measures": {**report.measures, **(report.composition.measures if report.composition else {})},
        },
    )


def _test_run(context: ActionContext, trying: Trying) -> TestRun:
    wheel, location = Path(trying.wheel), trying.location
    assert location is not None  # noqa: S101 - a plan without the wheel has no key, and is not carried out
    named = WheelName.parse(wheel.name)
    return TestRun(
        context=context,
        location=location,
        wheel=wheel,
        distribution=named.distribution,
        version=str(named.version),
        python=trying.python,
        left_out=trying.left_out,
        floor=trying.floor,
    )


def _write(context: ActionContext, report: Report) -> None:
    write_atomically(context.stage / REPORT, json.dumps(report.as_json(), indent=1))
