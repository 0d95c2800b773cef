"""Runs a wheel's extension on an emulated CPU of its variant's level, where any instruction above it is illegal."""

import shutil
from pathlib import Path

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.checks import Check, Judgement, RunOptions, convicted, passed, skipped
from vllm_wheels.core.verify.runs.probing import convicting_in_full
from vllm_wheels.core.verify.test_run import (
    HERE,
    INSTALLS,
    PROGRAMS,
    TestRun,
    answer,
    answer_lines,
    last_lines,
    sandboxed,
)

EMULATORS = ("qemu-x86_64-static", "qemu-x86_64")
"""The statically linked one first: it runs in a container as well."""

STATIC = EMULATORS[:1]
PACKAGE = "qemu-user-static"
COPY = "qemu"
PROBE = "emulated.py"
UNDER_A_SHELL = ("sh", "-c", 'ulimit -c 0; "$@"; exit "$?"', "sh")
"""Qemu ends by sending itself the signal; process 1 of a container ignores signals, so a shell must be process 1."""

ILLEGAL = 132
"""Exit status of a shell whose command was killed by SIGILL."""


def _emulated(test_run: TestRun) -> Judgement:
    cpu = cpu_of(test_run)
    if not cpu:
        return skipped("qemu emulates no CPU of the variant's level")
    copy_emulator(test_run.folder, static=test_run.in_container)
    (command,) = test_run.commands
    return judged(test_run.start(command), cpu)


def _commands(options: RunOptions) -> tuple[Invocation, ...]:
    cpu = cpu_of(options)
    emulator = (f"{HERE}/{COPY}", "-cpu", cpu)
    probe = (f"{PROGRAMS}/python", "-I", f"{HERE}/probes/{PROBE}")
    return (sandboxed(*UNDER_A_SHELL, *emulator, *probe),) if cpu else ()


def cpu_of(known: TestRun | RunOptions) -> str:
    """Qemu's CPU model that has the wheel's floor and nothing above it; empty where qemu has none."""
    return next((each.emulated for each in variants().values() if each.floor == known.floor), "")


def copy_emulator(folder: Path, *, static: bool) -> Path:
    """Copies qemu into the folder; where only a static one will do, one that needs no libraries of this host."""
    names = STATIC if static else EMULATORS
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        what = "there is no emulator to run the wheel on a lesser CPU"
        raise CannotVerifyError(what, why=f"{names[0]} is not on PATH", remedy=f"apt-get install {PACKAGE}")
    return Path(shutil.copy(found, folder / COPY))


def judged(finished: Finished, cpu: str) -> Judgement:
    """Judges what the probe printed, and how it ended, on the emulated CPU."""
    seen = {said["probe"]: said for said in map(answer, answer_lines(finished))}
    if seen.get("torch", {}).get("capability") != "AVX2":
        what = f"this qemu does not emulate {cpu} well enough for torch"
        why = f"torch found {seen.get('torch', {}).get('capability', 'nothing, it died')}"
        raise CannotVerifyError(what, why=why, remedy="take qemu 7.2 or newer")
    evidence = last_lines(finished.output)
    if finished.status == ILLEGAL:
        line = f"dies of an illegal instruction on an emulated {cpu}"
        remedy = "see forbidden-instructions; compile every file of the extension with the variant's flags alone"
        return convicted(line, evidence=evidence, remedy=remedy)
    computed = seen.get("emulated")
    if finished.status != 0 or computed is None:
        line = f"ends with status {finished.status} on an emulated {cpu}"
        return convicted(line, evidence=evidence, remedy="see the evidence")
    if not computed["agree"]:
        line = f"computes something else than torch on an emulated {cpu}: {computed['differences']}"
        return convicted(line, evidence=evidence, remedy="look at the kernels")
    line = f"{computed['extension']} loads and computes on an emulated {cpu}"
    return passed(line, evidence=evidence, emulation_seconds=finished.seconds)


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        "runs-on-lowest-cpu",
        "run the extension on an emulated CPU of the variant's level",
        convicting_in_full(_emulated),
        severity="warning",
        needs=(INSTALLS,),
        seconds=90,
        commands=_commands,
        inputs=("floor",),
        tools=(),
    ),
)
