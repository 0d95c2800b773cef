"""Verifies any wheels, ours or not, given as files or by name and version; uses no store."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.version import Version

from vllm_wheels.core.engine.plan import ActionContext
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.published import fetch
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.texts import shown_line
from vllm_wheels.core.verify.checks import UNJUDGEABLE, not_judged, run_check
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.opening import is_vllm, opened
from vllm_wheels.core.verify.places import Places
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.runs.installation import left_out
from vllm_wheels.core.verify.static_checks import GENERAL, report_on, run_static_checks
from vllm_wheels.core.verify.test_run import TestRun
from vllm_wheels.core.verify.test_runs import TEST_RUNS
from vllm_wheels.core.verify.unpacked import UnpackedWheel

SCHEMA = 1
PASSED, CONVICTED, OPEN = 0, 1, 2
BY_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]{0,127})==(?P<version>[\w.+!-]{1,100})")
"""No longer than the name of a file may be."""
ALL = "all"
SHOWN_NAME = 200
"""Characters of a name that is no wheel's."""


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """A wheel that could not be verified, and why."""

    wheel: str
    why: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The reports on all wheels of a call."""

    reports: tuple[Report, ...]  # one per wheel and Python
    unjudged: tuple[Unjudged, ...]  # what is no wheel, or could not be had

    @property
    def exit_code(self) -> int:
        """0 all passed, 1 something is convicted, 2 something could not be judged and nothing is convicted."""
        verdicts = {report.verdict for report in self.reports}
        if "convicted" in verdicts:
            return CONVICTED
        return OPEN if self.unjudged or verdicts != {"passed"} else PASSED

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; each report is as ``docs/schemas/report.schema.json`` says."""
        return {
            "schema": SCHEMA,
            "exit_code": self.exit_code,
            "reports": [report.as_json() for report in self.reports],
            "unjudged": [asdict(each) for each in self.unjudged],
        }


def verify(
    wheels: Sequence[str],
    *,
    settings: Settings,
    runner: Runner,
    pythons: Sequence[str] = (),
    variant: str | None = None,
    install: bool = True,
    any_wheel: bool = False,
    guarded: bool = True,
    say: Callable[[str], None],
) -> Verdicts:
    """Runs the static checks on wheels, comparing them with one another, and the test runs of each.

    Wheels are files, or ``name==version`` of the configured index, and judged as ``variant``, or what their names tell.
    Each is tried on ``pythons``: ``all`` means every one that it claims and this installation has; none means this
    Python, or the lowest claimed one where the wheel does not claim this one. With ``any_wheel`` a wheel that is not
    vLLM is held against the checks that hold for any, and not installed. What is installed runs in a sandbox, or in a
    container; where it is not ``guarded``, on this host.
    """
    unjudged: list[Unjudged] = []
    with ExitStack() as stack:
        opened_wheels: list[UnpackedWheel] = []
        for given in wheels:
            try:
                path = _file(given, stack, settings, say, python=next((one for one in pythons if one != ALL), None))
                opened_wheels.append(
                    stack.enter_context(
                        opened(path, settings=settings, runner=runner, variant=variant, any_wheel=any_wheel)
                    )
                )
            except VllmWheelsError as error:
                name = shown_line(Path(given).name or given, SHOWN_NAME) or "''"
                unjudged.append(Unjudged(wheel=name, why=shown_line(error.why), remedy=shown_line(error.remedy)))
        session = _Session(settings=settings, runner=runner, say=say, guarded=guarded)
        reports = [
            report
            for unpacked in opened_wheels
            for report in session.reports(_with_neighbours(unpacked, opened_wheels), pythons=pythons, install=install)
        ]
    return Verdicts(reports=tuple(reports), unjudged=tuple(unjudged))


def _file(given: str, stack: ExitStack, settings: Settings, say: Callable[[str], None], *, python: str | None) -> Path:
    match = BY_NAME.fullmatch(given)
    if match is None or Path(given).exists():
        return Path(given)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="vllm-wheels-fetch-")))
    path = fetch(match["name"], match["version"], folder, settings, python=python)
    say(f"fetched {path.name}, {path.stat().st_size / 1e6:.1f} MB")
    return path


def _with_neighbours(unpacked: UnpackedWheel, wheels: Sequence[UnpackedWheel]) -> UnpackedWheel:
    others = tuple(
        other.as_neighbour() for other in wheels if other is not unpacked and _release(other) == _release(unpacked)
    )
    return replace(unpacked, neighbours=others)


def _release(unpacked: UnpackedWheel) -> str:
    return Version(unpacked.version).base_version


@dataclass(kw_only=True)
class _Session:
    settings: Settings
    runner: Runner
    say: Callable[[str], None]
    guarded: bool

    @property
    def _places(self) -> Places:
        return Places(settings=self.settings, runner=self.runner)

    def reports(self, unpacked: UnpackedWheel, *, pythons: Sequence[str], install: bool) -> Iterator[Report]:
        self.say(f"checking {unpacked.path.name}")
        report = report_on(unpacked)
        vllm = is_vllm(unpacked.file, self.settings)
        for finding in run_static_checks(unpacked, only=None if vllm else GENERAL):
            report = report.with_finding(finding, now=time.time())
        if not install or not vllm:
            yield report
            return
        for python in self._pythons(unpacked, pythons):
            yield self._with_test_runs(unpacked, replace(report, python=python))

    def _pythons(self, unpacked: UnpackedWheel, pythons: Sequence[str]) -> Sequence[str]:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        if not pythons:
            return (here if here in unpacked.claims else next(iter(unpacked.claims), here),)
        if ALL not in pythons:
            return tuple(dict.fromkeys(pythons))
        chosen = []
        for python in unpacked.claims:
            why = self._places.obstacle(unpacked.path, python)
            if why:
                self.say(f"NOTICE: not tried on Python {python}: {why}")
            else:
                chosen.append(python)
        return chosen or unpacked.claims[:1] or (here,)

    def _with_test_runs(self, unpacked: UnpackedWheel, report: Report) -> Report:
        try:
            location = self._places.location(unpacked.path)
        except UNJUDGEABLE as error:
            return report.with_finding(not_judged(error).of("location", "error"), now=time.time())
        self.say(f"trying {unpacked.path.name} on Python {report.python} in: {location.kind} ({location.why})")
        report = replace(report, location=location)
        with TemporaryDirectory(prefix="vllm-wheels-test_run-", ignore_cleanup_errors=True) as folder:
            test_run = self._test_run(unpacked, str(report.python), location, Path(folder))
            for check in TEST_RUNS:
                finding = run_check(check, test_run.with_commands_of(check), earlier=report.findings)
                report = report.with_finding(finding, now=time.time())
        return report

    def _test_run(self, unpacked: UnpackedWheel, python: str, location: TestLocation, stage: Path) -> TestRun:
        context = ActionContext(
            stage=stage,
            settings=self.settings,
            runner=self.runner,
            find_builder=partial(self._places.builder, unpacked.path),
            say=self.say,
        )
        return TestRun(
            context=context,
            location=location,
            wheel=unpacked.path,
            distribution=unpacked.distribution,
            version=unpacked.version,
            python=python,
            left_out=left_out(self.settings),
            floor=unpacked.variant.floor if unpacked.variant else (),
            guarded=self.guarded,
        )
