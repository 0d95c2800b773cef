"""Verifies any wheels, ours or not, by file or from the index, without a pipeline around them."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.version import Version

from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.plan import Bench
from vllm_wheels.core.runner import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.behaviour import CHECKS
from vllm_wheels.core.verify.checks import UNJUDGEABLE, carry_out, left_open
from vllm_wheels.core.verify.install import left_out
from vllm_wheels.core.verify.look import look, report_on
from vllm_wheels.core.verify.published import fetch
from vllm_wheels.core.verify.ready import Places
from vllm_wheels.core.verify.report import Finding, Report
from vllm_wheels.core.verify.specimen import Specimen, opened
from vllm_wheels.core.verify.trial import TRIAL, Trial
from vllm_wheels.core.verify.venue import Venue

SCHEMA = 1
PASSED, CONVICTED, OPEN = 0, 1, 2
BY_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.+!-]+)")
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """A wheel about which there is no report, and why."""

    wheel: str
    why: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The reports on all wheels of one call.

    Attributes:
        reports: one per wheel and Python.
        unjudged: what is no wheel, or could not be had.
    """

    reports: tuple[Report, ...]
    unjudged: tuple[Unjudged, ...]

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
    say: Callable[[str], None],
) -> Verdicts:
    """Looks through wheels, compares them with one another, and tries each.

    Args:
        wheels: files, or ``name==version`` of the configured index.
        settings: of the user.
        runner: starts processes.
        pythons: to try each wheel on; ``all`` means every one that it claims and this installation has; none means
            this Python, or the lowest claimed one where the wheel does not claim this one.
        variant: to judge them as; guessed from their names where not given.
        install: False looks through them only.
        say: tells the user one line.
    """
    unjudged: list[Unjudged] = []
    with ExitStack() as stack:
        table: list[Specimen] = []
        for given in wheels:
            try:
                path = _file(given, stack, settings, say)
                table.append(stack.enter_context(opened(path, settings=settings, runner=runner, variant=variant)))
            except VllmWheelsError as error:
                unjudged.append(Unjudged(wheel=_name(given), why=_one_line(error.why), remedy=_one_line(error.remedy)))
        session = _Session(settings=settings, runner=runner, say=say)
        reports = [
            report
            for specimen in table
            for report in session.reports(_among(specimen, table), pythons=pythons, install=install)
        ]
    return Verdicts(reports=tuple(reports), unjudged=tuple(unjudged))


def _file(given: str, stack: ExitStack, settings: Settings, say: Callable[[str], None]) -> Path:
    match = BY_NAME.fullmatch(given)
    if match is None or Path(given).exists():
        return Path(given)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="vllm-wheels-fetch-")))
    path = fetch(match["name"], match["version"], folder, settings)
    say(f"fetched {path.name}, {path.stat().st_size / 1e6:.1f} MB")
    return path


def _name(given: str) -> str:
    return _one_line(Path(given).name or given) or "''"


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _among(specimen: Specimen, table: Sequence[Specimen]) -> Specimen:
    others = tuple(
        other.as_neighbour() for other in table if other is not specimen and _release(other) == _release(specimen)
    )
    return replace(specimen, neighbours=others)


def _release(specimen: Specimen) -> str:
    return Version(specimen.version).base_version


@dataclass(kw_only=True)
class _Session:
    settings: Settings
    runner: Runner
    say: Callable[[str], None]

    @property
    def _places(self) -> Places:
        return Places(settings=self.settings, runner=self.runner)

    def reports(self, specimen: Specimen, *, pythons: Sequence[str], install: bool) -> Iterator[Report]:
        self.say(f"looking through {specimen.path.name}")
        looked = report_on(specimen)
        for finding in look(specimen):
            looked = looked.with_finding(finding, now=time.time())
        if not install:
            yield looked
            return
        for python in self._chosen(specimen, pythons):
            yield self._tried(specimen, replace(looked, python=python))

    def _chosen(self, specimen: Specimen, pythons: Sequence[str]) -> Sequence[str]:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        if not pythons:
            return (here if here in specimen.claims else next(iter(specimen.claims), here),)
        if ALL not in pythons:
            return tuple(dict.fromkeys(pythons))
        chosen = []
        for python in specimen.claims:
            why = self._places.obstacle(specimen.path, python)
            if why:
                self.say(f"NOTICE: not tried on Python {python}: {why}")
            else:
                chosen.append(python)
        return chosen or specimen.claims[:1] or (here,)

    def _tried(self, specimen: Specimen, report: Report) -> Report:
        try:
            venue = self._places.venue(specimen.path)
        except UNJUDGEABLE as error:
            open_question = left_open(error)
            finding = Finding(
                check="venue",
                severity="error",
                verdict=open_question.verdict,
                line=open_question.line,
                evidence=open_question.evidence,
                remedy=open_question.remedy,
            )
            return report.with_finding(finding, now=time.time())
        self.say(f"trying {specimen.path.name} on Python {report.python} in: {venue.kind} ({venue.why})")
        report = replace(report, venue=venue)
        with self._trial(specimen, str(report.python), venue) as trial:
            for check in CHECKS:
                finding = carry_out(check, trial.facing(check), earlier=report.findings)
                report = report.with_finding(finding, now=time.time())
        return report

    @contextmanager
    def _trial(self, specimen: Specimen, python: str, venue: Venue) -> Iterator[Trial]:
        with TemporaryDirectory(prefix="vllm-wheels-trial-", ignore_cleanup_errors=True) as folder:
            stage = Path(folder)
            bench = Bench(
                stage=stage,
                settings=self.settings,
                runner=self.runner,
                find_builder=partial(self._places.builder, specimen.path),
                say=self.say,
            )
            yield Trial(
                bench=bench,
                venue=venue,
                wheel=specimen.path,
                distribution=specimen.distribution,
                version=specimen.version,
                python=python,
                left_out=left_out(self.settings),
                floor=specimen.variant.floor if specimen.variant else (),
            )
            shutil.rmtree(stage / TRIAL, ignore_errors=True)
