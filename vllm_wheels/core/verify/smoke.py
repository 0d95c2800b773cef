"""Piece "verification": tries the finished wheel in a clean environment and keeps the report."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from vllm_wheels.core.builders import Builder
from vllm_wheels.core.environment import index_arguments
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.plan import STAGE, Bench, Plan, Step, Verb, fingerprint
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.store import Piece, write_atomically
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant
from vllm_wheels.core.verify.behaviour import CHECKS, INSTALLS, lacking
from vllm_wheels.core.verify.checks import carry_out
from vllm_wheels.core.verify.gate import require_verdict
from vllm_wheels.core.verify.install import left_out
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.trial import TRIAL, Trial
from vllm_wheels.core.verify.venue import Venue, choose

REPORT = "report.json"
PAGE = "report.md"

BEGIN, CHECK, END = "verification.begin", "verification.check", "verification.end"


def plan(
    target: Target,
    *,
    wheel: Piece | None,
    settings: Settings,
    find_builder: Callable[[], Builder],
    unavailable: Sequence[str] = (),
) -> Plan:
    """The plan of piece ``verification``: one step per check, so that a dry run shows each.

    Args:
        target: release, Python and variant.
        wheel: whose folder holds exactly one ``*.whl``; None while it is not made.
        settings: of the user.
        find_builder: called only if the wheel may not be tried on this host.
        unavailable: torch packages that the build environment went without (``left_out`` of piece ``torch_env``).

    Raises:
        CannotVerifyError: the piece has no wheel, or nothing here can run it.
        MachineError: the builder is needed and cannot work here.
    """
    floor = variant(target.variant).floor if target.variant else ()
    without = left_out(settings, unavailable=unavailable)
    trial: dict[str, Any] = {"python": target.python, "left_out": list(without), "floor": list(floor)}
    if wheel is None:
        steps = _steps({**trial, "wheel": "<wheel, not made yet>"})
        return Plan(piece="verification", target=target, inputs={}, steps=steps, unknown=("wheel",))
    path = wheel_of(wheel.folder)
    venue = choose(path.name, smoke=settings.smoke, find_builder=find_builder)
    trial |= {"wheel": str(path), "venue": {"kind": venue.kind, "why": venue.why, "identity": dict(venue.identity)}}
    inputs = {
        "wheel": _sha256(path),
        "python": target.python,
        "venue": {"kind": venue.kind, **venue.identity},
        "left_out": list(without),
        "lacking": list(lacking(floor)),
        # Only a hash: addresses of indexes may hold passwords.
        "index": fingerprint({"arguments": index_arguments(settings, os.environ), "backend": settings.torch.backend}),
        "generate": settings.smoke.generate,
        "checks": source_sha256(),
    }
    return Plan(piece="verification", target=target, inputs=inputs, steps=_steps(trial))


def wheel_of(folder: Path) -> Path:
    """The one wheel in a piece's folder.

    Raises:
        CannotVerifyError: there is none, or more than one.
    """
    found = sorted(folder.glob("*.whl"))
    if len(found) == 1:
        return found[0]
    what = f"{folder} does not hold exactly one wheel"
    why = f"found: {', '.join(path.name for path in found) or 'none'}"
    raise CannotVerifyError(what, why=why, remedy="remove that folder and build the wheel again")


def source_sha256() -> str:
    """Hash of the checks' own source, so that changed checks are carried out anew."""
    folder = Path(__file__).parent
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


def read_report(folder: Path) -> Report:
    """The report in a piece's folder.

    Raises:
        CannotVerifyError: there is none, or it cannot be read.
    """
    path = folder / REPORT
    try:
        return Report.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        what = f"there is no report {path}"
        raise CannotVerifyError(what, why=str(error), remedy="verify the wheel again") from error


def _steps(trial: Mapping[str, Any]) -> tuple[Step, ...]:
    report, page, folder = f"{STAGE}/{REPORT}", f"{STAGE}/{PAGE}", f"{STAGE}/{TRIAL}"
    wheel = trial["wheel"]
    return (
        Step(
            title="begin the report",
            verb=BEGIN,
            arguments={"trial": trial},
            reads=(wheel,),
            writes=(report,),
            seconds=0,
        ),
        *(
            Step(
                title=check.title,
                verb=CHECK,
                arguments={"name": check.name, "trial": trial},
                reads=(wheel, report) if check.name == INSTALLS else (folder, report),
                writes=(report,),
                seconds=check.seconds,
            )
            for check in CHECKS
        ),
        Step(title="finish the report", verb=END, reads=(report,), writes=(report, page), seconds=1),
    )


def _begin(bench: Bench, *, trial: Mapping[str, Any]) -> None:
    tried = _trial(bench, trial)
    report = Report(
        wheel=tried.wheel.name,
        sha256=_sha256(tried.wheel),
        distribution=tried.distribution,
        version=tried.version,
        python=tried.python,
        venue=tried.venue,
        findings=(),
        started=time.time(),
        seconds=0.0,
    )
    bench.say(f"trying {tried.wheel.name} in: {tried.venue.kind} ({tried.venue.why})")
    _write(bench, report)


def _check(bench: Bench, *, name: str, trial: Mapping[str, Any]) -> None:
    report = read_report(bench.stage)
    check = next(each for each in CHECKS if each.name == name)
    finding = carry_out(check, _trial(bench, trial), earlier=report.findings)
    bench.say(f"{finding.verdict}: {finding.check}: {finding.line}")
    _write(bench, report.with_finding(finding, now=time.time()))


def _end(bench: Bench) -> Mapping[str, Any]:
    """Writes the page and throws the environment away.

    Raises:
        CannotVerifyError: there is no verdict; such a report is not kept, or the next run would not try again.
    """
    report = read_report(bench.stage)
    (bench.stage / PAGE).write_text(report.as_markdown(), "utf-8")
    shutil.rmtree(bench.stage / TRIAL, ignore_errors=True)
    require_verdict(report)
    return {
        "verdict": report.verdict,
        "counts": report.counts,
        "venue": f"{report.venue.kind} ({report.venue.why})",
        "seconds": round(report.seconds, 1),
        **report.measures,
    }


def _trial(bench: Bench, trial: Mapping[str, Any]) -> Trial:
    wheel = Path(trial["wheel"])
    distribution, version, _, _ = parse_wheel_filename(wheel.name)
    return Trial(
        bench=bench,
        venue=Venue(**trial["venue"]),
        wheel=wheel,
        distribution=distribution,
        version=str(version),
        python=trial["python"],
        left_out=tuple(trial["left_out"]),
        floor=tuple(trial["floor"]),
    )


def _write(bench: Bench, report: Report) -> None:
    write_atomically(bench.stage / REPORT, json.dumps(report.as_json(), indent=1))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


VERBS: Mapping[str, Verb] = {BEGIN: _begin, CHECK: _check, END: _end}
