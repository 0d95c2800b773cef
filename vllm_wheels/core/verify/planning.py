"""Plans artifact "verification": which checks run, and which findings the store has already."""

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.code import installed
from vllm_wheels.core.engine.plan import Plan, Step, digest
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import CannotVerifyError, WheelError
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.commands import STAGE
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.index.arguments import index_arguments
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant, variants
from vllm_wheels.core.verify.actions import (
    RunArguments,
    StaticArguments,
    WheelUnderTest,
    check_statically,
    finish,
    kept_parts,
    run_test,
)
from vllm_wheels.core.verify.checks import Check, RunOptions
from vllm_wheels.core.verify.locations import choose
from vllm_wheels.core.verify.parts import KeptParts, Parts, versions
from vllm_wheels.core.verify.report import HTML, PAGE, REPORT
from vllm_wheels.core.verify.runs.installation import left_out
from vllm_wheels.core.verify.runs.processor import lacking
from vllm_wheels.core.verify.statement import provenance_of
from vllm_wheels.core.verify.static.machine_code import judged_as
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels.core.verify.test_run import INSTALLS, TEST_RUN
from vllm_wheels.core.verify.test_runs import IN_ENVIRONMENT, TEST_RUNS
from vllm_wheels.core.verify.unpacked import summary_of

ALL: tuple[Check[Any], ...] = (*STATIC, *TEST_RUNS)
UNPACKING_SECONDS = 2


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``verification``: a dry run shows which findings are kept and which checks run.

    Raises:
        CannotVerifyError: the artifact has no wheel, or nothing here can run it.
        MachineError: the builder is needed and cannot work here.
    """
    target, settings = context.target, context.settings
    wheel, torch_env = context.known.get("wheel"), context.known.get("torch_env")
    tested = WheelUnderTest(
        wheel="<wheel, not made yet>",
        target=target,
        location=None,
        left_out=left_out(settings, unavailable=torch_env.facts["left_out"] if torch_env else ()),
        floor=variant(target.variant).floor if target.variant else (),
    )
    options = RunOptions(settings=settings, left_out=tested.left_out, floor=tested.floor)
    if wheel is None:
        return Plan(artifact="verification", target=target, inputs={}, steps=_steps(tested, options, keys={}, kept=()))
    path = wheel_of(wheel.folder)
    tested = replace(
        tested,
        wheel=str(path),
        location=choose(
            path.name, smoke=settings.smoke, find_builder=context.builder, unguarded=settings.builder.unguarded
        ),
        neighbours=tuple(str(found) for found in _lower_variants(target, context.store)),
    )
    inputs = _inputs(tested, settings)
    keys = _keys(tested, options, inputs)
    inputs |= {
        "commands": digest({check.name: [each.essence() for each in check.planned(options)] for check in TEST_RUNS}),
        "tools": versions(name for check in ALL for name in check.tools),
    }
    steps = _steps(tested, options, keys=keys, kept=_kept(keys, kept_parts(settings, target)))
    return Plan(artifact="verification", target=target, inputs=inputs, steps=steps)


def _keys(tested: WheelUnderTest, options: RunOptions, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Key of every check's finding; settings decide about commands of test runs only."""
    path = Path(tested.wheel)
    known = {**inputs, **_inputs_of_wheel(tested, options.settings)}
    parts = Parts(wheel=(path.name, sha256_of(path)), inputs=known, code=installed())
    static = {check.name: parts.key(check) for check in STATIC}
    return static | {check.name: parts.key(check, check.planned(options)) for check in TEST_RUNS}


def _inputs(tested: WheelUnderTest, settings: Settings) -> dict[str, Any]:
    """Inputs of checks from outside (settings, this machine, other wheels), by the names that checks declare."""
    location = tested.location
    return {
        # Only a hash: addresses of indexes may hold passwords.
        "index": digest({"arguments": index_arguments(settings, os.environ), "backend": settings.torch.backend}),
        "interpreter": f"{sys.version_info.major}.{sys.version_info.minor}",
        "lacking": list(lacking(tested.floor)),
        "left_out": list(tested.left_out),
        "location": {"kind": location.kind, **location.identity} if location else None,
        "neighbours": [sha256_of(Path(each)) for each in tested.neighbours],
        "python": tested.target.python,
        "torch_requirement": settings.wheel.torch_requirement,
        "licence": settings.wheel.licence,
    }


def _inputs_of_wheel(tested: WheelUnderTest, settings: Settings) -> dict[str, Any]:
    """Inputs of checks that follow from the wheel and variants.toml, and so are in the verification's key already."""
    name, path = tested.target.variant, Path(tested.wheel)
    return {
        "floor": list(tested.floor),
        "judged_as": _judged_as(path, name, settings) if name else None,
        "provenance": _provenance_sha256(path),
        "variant": asdict(variant(name)) if name else None,
        "variants": list(variants()),
    }


def _judged_as(wheel: Path, name: str, settings: Settings) -> dict[str, Any] | None:
    try:
        summary = summary_of(WheelFile.read(wheel, trusting=False))
    except WheelError:
        # The static checks say so in full.
        return None
    code, admitted = judged_as(variant(name), summary, settings)
    promised = {"promises": list(code.promises), "forbids": list(code.forbids)}
    return {"variant": name, **promised, "admitted": admitted.name if admitted else None}


def _provenance_sha256(wheel: Path) -> str:
    try:
        return digest(provenance_of(wheel) or {})
    except CannotVerifyError as error:
        return str(error)


def _lower_variants(target: Target, store: Store) -> Iterator[Path]:
    """The newest wheel of each lower variant of the release, for the comparison of machine code."""
    names = list(variants())
    wanted: set[str | None] = set(names[: names.index(target.variant)] if target.variant else ())
    for artifact in store.artifacts("wheel"):
        name = artifact.made_for["variant"]
        if artifact.made_for["release"] == target.release and name in wanted:
            wanted.discard(name)
            yield from wheels_in(artifact.folder)[:1]


def wheel_of(folder: Path) -> Path:
    """The one wheel in an artifact's folder."""
    found = wheels_in(folder)
    if len(found) == 1:
        return found[0]
    what = f"{folder} does not hold exactly one wheel"
    why = f"found: {', '.join(path.name for path in found) or 'none'}"
    raise CannotVerifyError(what, why=why, remedy="remove that folder and build the wheel again")


def _kept(keys: Mapping[str, str], kept: KeptParts) -> set[str]:
    """Names of the checks that do not run; the installation is repeated for every test run that does."""
    found = {check.name for check in ALL if check.lasting and kept.finding(keys[check.name])}
    if any(check.name not in found for check in IN_ENVIRONMENT):
        found.discard(INSTALLS)
    return found


def _steps(
    tested: WheelUnderTest, options: RunOptions, *, keys: Mapping[str, str], kept: Collection[str]
) -> tuple[Step[Any], ...]:
    running = [check for check in STATIC if check.name not in kept]
    findings = tuple(check.name for check in STATIC if check.name in kept)
    beside = f"; {len(findings)} findings are kept" if findings else ""
    static_keys = {check.name: keys[check.name] for check in STATIC if keys}
    static = Step(
        title=f"run the static checks ({len(running)} of {len(STATIC)}{beside})",
        action=check_statically,
        arguments=StaticArguments(tested=tested, keys=static_keys, kept=findings),
        reads=(tested.wheel, *tested.neighbours),
        writes=(f"{STAGE}/{REPORT}",),
        seconds=UNPACKING_SECONDS + sum(check.seconds or 0 for check in running),
        invocations=tuple(command for check in running for command in check.planned(options)),
    )
    finishing = Step(
        title="finish the report",
        action=finish,
        arguments=tested,
        reads=(f"{STAGE}/{REPORT}",),
        writes=tuple(f"{STAGE}/{name}" for name in (REPORT, PAGE, HTML)),
        seconds=1,
    )
    tests = (
        _test_step(check, tested, options, key=keys.get(check.name), kept=check.name in kept) for check in TEST_RUNS
    )
    return (static, *tests, finishing)


def _test_step(
    check: Check[Any], tested: WheelUnderTest, options: RunOptions, *, key: str | None, kept: bool
) -> Step[RunArguments]:
    report = f"{STAGE}/{REPORT}"
    subject = tested.wheel if check.name == INSTALLS else f"{STAGE}/{TEST_RUN}"
    return Step(
        title=f"{check.title} (not run: its finding is kept)" if kept else check.title,
        action=run_test,
        arguments=RunArguments(tested=tested, check=check.name, key=key, kept=kept),
        reads=(report,) if kept else (subject, report),
        writes=(report,),
        seconds=0 if kept else check.seconds,
        invocations=() if kept else check.planned(options),
    )
