"""Artifact "verification": looks through the finished wheel, tries it in a clean environment and keeps the report."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from vllm_wheels.core.artifacts.torch_env.environment import index_arguments
from vllm_wheels.core.builders import Builder
from vllm_wheels.core.engine.plan import Action, ActionContext, Plan, Step, digest
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.instructions import scan
from vllm_wheels.core.formats.wheelfile import sha256_of, wheels_in
from vllm_wheels.core.host.commands import STAGE, Invocation
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

SUFFIXES = frozenset({".py", ".c"})
"""Of files that are source of a check."""

BEGIN, CHECK, END = "verification.begin", "verification.check", "verification.end"
TOOLS = ("abi3audit", "auditwheel", "check-wheel-contents", "iced-x86", "packaging", "pydistcheck", "twine")
"""Whose newer versions may come to other findings."""


def plan(
    target: Target,
    *,
    wheel: Artifact | None,
    settings: Settings,
    find_builder: Callable[[], Builder],
    unavailable: Sequence[str] = (),
) -> Plan:
    """The plan of artifact ``verification``: one step per check, so that a dry run shows each.

    Args:
        target: release, Python and variant.
        wheel: whose folder holds exactly one ``*.whl``; None while it is not made.
        settings: of the user.
        find_builder: called only if the wheel may not be tried on this host.
        unavailable: torch packages that the build environment went without (``left_out`` of artifact ``torch_env``).

    Raises:
        CannotVerifyError: the artifact has no wheel, or nothing here can run it.
        MachineError: the builder is needed and cannot work here.
    """
    floor = variant(target.variant).floor if target.variant else ()
    without = left_out(settings, unavailable=unavailable)
    test_run: dict[str, Any] = {"python": target.python, "left_out": list(without), "floor": list(floor)}
    if wheel is None:
        steps = _steps({**test_run, "wheel": "<wheel, not made yet>"}, settings)
        return Plan(artifact="verification", target=target, inputs={}, steps=steps, unknown=("wheel",))
    path = wheel_of(wheel.folder)
    neighbours = [str(found) for found in _lower_variants(target, settings)]
    location = choose(path.name, smoke=settings.smoke, find_builder=find_builder)
    test_run |= {"neighbours": neighbours, "variant": target.variant}
    test_run |= {
        "wheel": str(path),
        "location": {"kind": location.kind, "why": location.why, "identity": dict(location.identity)},
    }
    inputs = {
        "wheel": sha256_of(path),
        "python": target.python,
        "location": {"kind": location.kind, **location.identity},
        "left_out": list(without),
        "lacking": list(lacking(floor)),
        # Only a hash: addresses of indexes may hold passwords.
        "index": digest({"arguments": index_arguments(settings, os.environ), "backend": settings.torch.backend}),
        "generate": settings.smoke.generate,
        "checks": source_sha256(),
        "tools": {name: installed_version(name) for name in TOOLS},
        "variants": digest({name: asdict(each) for name, each in variants().items()}),
        "neighbours": [sha256_of(Path(name)) for name in neighbours],
        "torch_requirement": settings.wheel.torch_requirement,
    }
    return Plan(artifact="verification", target=target, inputs=inputs, steps=_steps(test_run, settings))


def _lower_variants(target: Target, settings: Settings) -> Iterator[Path]:
    """The newest wheel in the store of each lower variant of the release: of two that are alike the higher one lies."""
    names = list(variants())
    wanted = set(names[: names.index(target.variant)] if target.variant else ())
    for artifact in Store(settings.state_folder / "store").artifacts("wheel"):
        statement = json.loads((artifact.folder / "provenance.json").read_text("utf-8"))
        if statement["release"] == target.release and statement["variant"] in wanted:
            wanted.discard(statement["variant"])
            yield from wheels_in(artifact.folder)[:1]


def wheel_of(folder: Path) -> Path:
    """The one wheel in an artifact's folder.

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
    folder = Path(__file__).parent.parent
    total = hashlib.sha256()
    # The rules and the reading of machine code are shared with others and so lie outside.
    names = (
        "index/index_rules.toml",
        "index/rules.py",
        "formats/instructions.py",
        "variants.toml",
        "patches/labels.py",
    )
    shared = [folder / name for name in names]
    sources = [path for path in sorted((folder / "verify").rglob("*")) if path.suffix in SUFFIXES]
    for path in (*sources, *shared):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


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


def _steps(test_run: Mapping[str, Any], settings: Settings) -> tuple[Step, ...]:
    premises = Premises(settings=settings, left_out=tuple(test_run["left_out"]), floor=tuple(test_run["floor"]))
    report, folder = f"{STAGE}/{REPORT}", f"{STAGE}/{TEST_RUN}"
    wheel = test_run["wheel"]
    return (
        Step(
            title=f"look through the wheel without installing it ({len(STATIC)} checks)",
            action=BEGIN,
            arguments={"test_run": test_run, "checks": [check.name for check in STATIC]},
            reads=(wheel, *test_run.get("neighbours", ())),
            writes=(report,),
            seconds=sum(check.seconds or 0 for check in STATIC),
            invocations=tuple(command for check in STATIC for command in check.planned(premises)),
        ),
        *(
            Step(
                title=check.title,
                action=CHECK,
                arguments={"name": check.name, "test_run": test_run},
                reads=(wheel, report) if check.name == INSTALLS else (folder, report),
                writes=(report,),
                seconds=check.seconds,
                invocations=check.planned(premises),
            )
            for check in CHECKS
        ),
        Step(
            title="finish the report",
            action=END,
            reads=(report,),
            writes=tuple(f"{STAGE}/{name}" for name in (REPORT, PAGE, HTML)),
            seconds=1,
        ),
    )


def _begin(
    context: ActionContext,
    *,
    test_run: Mapping[str, Any],
    checks: Sequence[str],  # noqa: ARG001 - a plan shows them
    invocations: tuple[Invocation, ...],  # noqa: ARG001 - each check has its own of them in its table
) -> None:
    tried = _test_run(context, test_run)
    neighbours = [_neighbour(Path(name), context.settings) for name in test_run["neighbours"]]
    with opened(
        tried.wheel,
        settings=context.settings,
        runner=context.runner,
        variant=test_run["variant"],
        neighbours=neighbours,
    ) as unpacked:
        report = report_on(unpacked, python=tried.python, location=tried.location)
        for finding in look(unpacked, on_finding=lambda found: _tell(context, found)):
            report = report.with_finding(finding, now=time.time())
    context.say(f"trying {tried.wheel.name} in: {tried.location.kind} ({tried.location.why})")
    _write(context, report)


def _neighbour(path: Path, settings: Settings) -> Neighbour:
    name = str(parse_wheel_filename(path.name)[0])
    known = {configured: variant for variant, configured in distributions(settings).items()}
    found = scan(path)
    return Neighbour(
        name=path.name, distribution=name, variant=known.get(name), code=found.sha256 if found.own else None
    )


def _tell(context: ActionContext, finding: Finding) -> None:
    context.say(f"{finding.verdict}: {finding.check}: {finding.line}")


def _check(
    context: ActionContext, *, name: str, test_run: Mapping[str, Any], invocations: tuple[Invocation, ...] = ()
) -> None:
    report = read_report(context.stage)
    check = next(each for each in CHECKS if each.name == name)
    finding = carry_out(check, _test_run(context, test_run).facing(check, invocations), earlier=report.findings)
    _tell(context, finding)
    _write(context, report.with_finding(finding, now=time.time()))


def _end(context: ActionContext) -> Mapping[str, Any]:
    """Writes the page and throws the environment away.

    Raises:
        CannotVerifyError: there is no verdict; such a report is not kept, or the next run would not try again.
    """
    report = read_report(context.stage)
    (context.stage / PAGE).write_text(report.as_markdown(), "utf-8")
    (context.stage / HTML).write_text(as_html(report), "utf-8")
    shutil.rmtree(context.stage / TEST_RUN, ignore_errors=True)
    require_verdict(report)
    return {
        "verdict": report.verdict,
        "counts": report.counts,
        "location": report.tried_in,
        "seconds": round(report.seconds, 1),
        "measures": {**report.measures, **(report.composition.measures if report.composition else {})},
    }


def _test_run(context: ActionContext, test_run: Mapping[str, Any]) -> TestRun:
    wheel = Path(test_run["wheel"])
    distribution, version, _, _ = parse_wheel_filename(wheel.name)
    return TestRun(
        context=context,
        location=TestLocation(**test_run["location"]),
        wheel=wheel,
        distribution=distribution,
        version=str(version),
        python=test_run["python"],
        left_out=tuple(test_run["left_out"]),
        floor=tuple(test_run["floor"]),
    )


def _write(context: ActionContext, report: Report) -> None:
    write_atomically(context.stage / REPORT, json.dumps(report.as_json(), indent=1))


ACTIONS: Mapping[str, Action] = {BEGIN: _begin, CHECK: _check, END: _end}
