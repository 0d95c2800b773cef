"""The actions of a verification's steps: run the checks whose findings are not kept, and write the report."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.plan import ActionContext, Made
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.host.files import sha256_of, write_atomically
from vllm_wheels.core.names import distributions
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify.checks import Check, missing_needs, run_check
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.gate import require_verdict
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.page import as_html
from vllm_wheels.core.verify.parts import KeptParts
from vllm_wheels.core.verify.report import HTML, PAGE, REPORT, Report, read_report
from vllm_wheels.core.verify.static.machine_code import IDENTICAL_CODE
from vllm_wheels.core.verify.static_checks import STATIC, report_on, run_static_checks
from vllm_wheels.core.verify.test_run import TEST_RUN, TestRun
from vllm_wheels.core.verify.test_runs import TEST_RUNS
from vllm_wheels.core.verify.unpacked import Neighbour


@dataclass(frozen=True, kw_only=True)
class WheelUnderTest:
    """The wheel that is verified, and the setup in which it is installed and run."""

    wheel: str  # path of the file
    target: Target  # that it was made for
    location: TestLocation | None  # where it is installed and run; None while it is not made
    left_out: tuple[str, ...]  # requirements that are not installed on purpose, by normalised name
    floor: tuple[str, ...]  # flags of /proc/cpuinfo without which the wheel need not load
    neighbours: tuple[str, ...] = ()  # paths of the release's wheels of lower variants


@dataclass(frozen=True, kw_only=True)
class StaticArguments:
    """Arguments of ``check_statically``."""

    tested: WheelUnderTest
    keys: Mapping[str, str]  # of each check's finding, by check
    kept: tuple[str, ...]  # checks that are not run, because the store has their findings


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Arguments of ``run_test``."""

    tested: WheelUnderTest
    check: str
    key: str | None  # of its finding; None while the wheel is not made
    kept: bool  # whether the store has its finding, so that it is not run


def kept_parts(settings: Settings, target: Target) -> KeptParts:
    """Access to the findings that the user's store keeps."""
    store = Store(settings.state_folder / "store")
    return KeptParts(store=store, target=target, wait_seconds=settings.builder.lock_seconds)


def check_statically(context: ActionContext, arguments: StaticArguments) -> None:
    """Runs the static checks whose findings are not kept, and begins the report.

    Raises:
        CannotVerifyError: it is no wheel, is damaged, or is made to do harm.
    """
    tested = arguments.tested
    kept = kept_parts(context.settings, tested.target)
    path = Path(tested.wheel)
    known = {name: _kept(kept, arguments.keys[name]) for name in arguments.kept}
    compared = () if IDENTICAL_CODE in known else tested.neighbours
    with opened(
        path,
        settings=context.settings,
        runner=context.runner,
        variant=tested.target.variant,
        neighbours=[_neighbour(Path(name), kept, context.settings) for name in compared],
        scanner=lambda folder: kept.scan(sha256_of(path), folder),
    ) as unpacked:
        report = report_on(unpacked, python=tested.target.python, location=tested.location)
        for finding in run_static_checks(unpacked, kept=known):
            report = report.with_finding(finding, now=time.time())
    for check, finding in zip(STATIC, report.findings, strict=False):
        if check.name not in known:
            _tell(context, finding)
            _keep(kept, arguments.keys[check.name], check, report)
    if tested.location:
        context.say(f"trying {path.name} in: {tested.location.kind} ({tested.location.why})")
    _write(context, report)


def _neighbour(path: Path, kept: KeptParts, settings: Settings) -> Neighbour:
    name = WheelName.parse(path.name).distribution
    known = {configured: variant for variant, configured in distributions(settings).items()}
    found = kept.scan(sha256_of(path), path)
    code = found.sha256 if found.own else None
    return Neighbour(name=path.name, distribution=name, variant=known.get(name), code=code)


def run_test(context: ActionContext, arguments: RunArguments) -> None:
    """Runs one check of the installed wheel unless its finding is kept, and adds the finding to the report."""
    report, kept = read_report(context.stage), kept_parts(context.settings, arguments.tested.target)
    if arguments.kept:
        report = report.with_finding(_kept(kept, arguments.key), now=time.time())
    else:
        check = next(each for each in TEST_RUNS if each.name == arguments.check)
        test_run = replace(_test_run(context, arguments.tested), commands=context.invocations)
        finding = run_check(check, test_run, earlier=report.findings)
        report = report.with_finding(finding, now=time.time())
        _tell(context, finding)
        _keep(kept, arguments.key, check, report)
    _write(context, report)


def _kept(kept: KeptParts, key: str | None) -> Finding:
    finding = kept.finding(key) if key else None
    if finding is None:
        what = f"the finding {key} is no longer in the store"
        raise CannotVerifyError(what, why="it was removed after the plan was drawn up", remedy="verify the wheel again")
    return finding


def _keep(kept: KeptParts, key: str | None, check: Check[Any], report: Report) -> None:
    """Keeps the finding of a check, unless the check was left open, was not run, or depends on a server's answer."""
    finding = next(each for each in report.findings if each.check == check.name)
    judged = finding.verdict != "could-not-judge" and not missing_needs(check, report.findings)
    if key and judged and check.lasting:
        kept.keep(key, finding, wheel_sha256=report.sha256)


def _test_run(context: ActionContext, tested: WheelUnderTest) -> TestRun:
    wheel = Path(tested.wheel)
    assert tested.location is not None  # noqa: S101 - a plan without the wheel has no key, and is not carried out
    named = WheelName.parse(wheel.name)
    return TestRun(
        context=context,
        location=tested.location,
        wheel=wheel,
        distribution=named.distribution,
        version=str(named.version),
        python=tested.target.python,
        left_out=tested.left_out,
        floor=tested.floor,
        guarded=not context.settings.builder.unguarded,
    )


def finish(context: ActionContext, tested: WheelUnderTest) -> Made:
    """Writes the report as pages and removes the environment.

    Raises:
        OpenVerdictError: there is no verdict; such a report is not kept, or the next run would not try again.
    """
    report = read_report(context.stage)
    (context.stage / PAGE).write_text(report.as_markdown(), "utf-8")
    (context.stage / HTML).write_text(as_html(report), "utf-8")
    shutil.rmtree(context.stage / TEST_RUN, ignore_errors=True)
    require_verdict(report)
    return Made(
        facts={"verdict": report.verdict, "counts": report.counts, "sha256": sha256_of(Path(tested.wheel))},
        details={
            "location": report.tried_in,
            "seconds": round(report.seconds, 1),
            "measures": {**report.measures, **(report.composition.measures if report.composition else {})},
        },
    )


def _tell(context: ActionContext, finding: Finding) -> None:
    context.say(f"{finding.verdict}: {finding.check}: {finding.line}")


def _write(context: ActionContext, report: Report) -> None:
    write_atomically(context.stage / REPORT, json.dumps(report.as_json(), indent=1))
