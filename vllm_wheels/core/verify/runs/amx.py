"""Lets a wheel with AMX kernels generate tokens on a CPU without AMX: a preloaded library executes the instructions.

This says that the kernels compute what the wheel's own AVX-512 kernels compute, and nothing about how fast. Code that
oneDNN generates asks the processor itself, finds no AMX, and is not tried here.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.patches.cpu_guard import FLAGS_VARIABLE, cpu_flags
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.checks import Check, Judgement, RunOptions, convicted, passed, skipped
from vllm_wheels.core.verify.opening import guessed
from vllm_wheels.core.verify.runs.answers import farthest
from vllm_wheels.core.verify.runs.models import COPY, write_table
from vllm_wheels.core.verify.runs.probing import convicting_in_full
from vllm_wheels.core.verify.static.machine_code import judged_as
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
from vllm_wheels.core.verify.unpacked import summary_of

SOURCE = Path(__file__).with_name("amx.c")
AMX_C = "{amx.c}"
"""Stands in a plan for the path of amx.c, which differs from machine to machine."""

PROBE, COMMON, MAKER = "emulated_amx.py", "tiny_models.py", "checkpoints.py"
"""The probe, and the modules that it imports; a file that a module names is part of the module's code hash."""

MODEL = "mixtral-bf16"

LIBRARY = f"{HERE}/amx.so"
COUNTS = f"{HERE}/home/amx.counts"
COMPILER = "cc"
COMPILE = (COMPILER, "-shared", "-fPIC", "-O3", "-mavx2", "-mfma", "-o", LIBRARY, AMX_C)
COMPILE_SECONDS = 120.0
PACKAGE = "gcc"

EMULATED = frozenset({"amx_tile", "amx_bf16", "amx_int8"})
"""The features that amx.c emulates, as /proc/cpuinfo calls them."""

TOLERANCE = 0.1
"""Largest accepted difference of log-likelihoods: logits are bfloat16, with steps of 0.016 at their size here."""


def _emulated(test_run: TestRun) -> Judgement:
    if reason := _needless(test_run.floor):
        return skipped(reason)
    if not test_run.commands:
        return skipped("smoke.generate is off")
    if not _holds_amx(test_run):
        return skipped("it says that it holds no AMX instruction; torch generates those that it takes, for AMX alone")
    compiling, *generating = test_run.commands
    write_table(test_run)
    _compile(test_run, compiling)
    with_amx, without = (test_run.start(command) for command in generating)
    return judged(with_amx, without, test_run.floor)


def _commands(options: RunOptions) -> tuple[Invocation, ...]:
    if _needless(options.floor) or not options.settings.smoke.generate:
        return ()
    env = {
        "LD_PRELOAD": LIBRARY,
        "AMX_COUNTS": COUNTS,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        FLAGS_VARIABLE: " ".join(options.floor),
    }
    probe = (f"{PROGRAMS}/python", "-I", f"{HERE}/probes/{PROBE}", COPY, MODEL)
    return (Invocation(argv=COMPILE), *(sandboxed(*probe, told, **env) for told in ("yes", "no")))


def _holds_amx(test_run: TestRun) -> bool:
    settings = test_run.context.settings
    named = guessed(test_run.wheel, settings)
    summary = summary_of(WheelFile.read(test_run.wheel, trusting=False))
    return named is None or any(name.startswith("AMX_") for name in judged_as(named, summary, settings)[0].promises)


def _needless(floor: Sequence[str]) -> str:
    """Why AMX need not be emulated for a wheel with that floor on this machine; empty where it is."""
    present = cpu_flags() or frozenset()
    lacking = [flag for flag in floor if flag not in present]
    if not EMULATED.intersection(floor):
        return "the wheel needs no AMX"
    if not lacking:
        return "this machine has AMX, see generates-tokens"
    beyond = [flag for flag in lacking if flag not in EMULATED]
    return f"this machine also lacks {', '.join(beyond)}, which is not emulated" if beyond else ""


def _compile(test_run: TestRun, command: Invocation) -> None:
    """Compiles the library with this host's compiler; it needs so little of libc that it loads in any container."""
    remedy = f"apt-get install {PACKAGE}"
    if shutil.which(COMPILER) is None:
        what = "the emulation of AMX cannot be compiled"
        raise CannotVerifyError(what, why=f"{COMPILER} is not on PATH", remedy=remedy)
    argv = command.filled({HERE: str(test_run.folder), AMX_C: str(SOURCE)}).argv
    finished = test_run.context.runner.run(argv, timeout_seconds=COMPILE_SECONDS, keep_output=True, quiet=True)
    if finished.status != 0:
        what = f"{COMPILER} cannot compile {SOURCE.name}"
        raise CannotVerifyError(what, why=(finished.tail or ("it says nothing",))[0], remedy=remedy)


def judged(with_amx: Finished, without: Finished, floor: Sequence[str]) -> Judgement:
    """Compares the tokens that vLLM generated with emulated AMX with those that it generated without AMX."""
    for finished in (with_amx, without):
        if finished.status != 0 or not answer_lines(finished):
            line = f"ends with status {finished.status} where AMX is emulated"
            return convicted(line, evidence=last_lines(finished.output), remedy="see the evidence")
    emulated, own = answer(answer_lines(with_amx)[-1]), answer(answer_lines(without)[-1])
    if own["instructions"]:
        what = "there is nothing to compare the AMX kernels with"
        raise CannotVerifyError(what, why="vLLM uses them whatever torch says", remedy="verify on a machine with AMX")
    executed: Mapping[str, Mapping[str, int]] = emulated["instructions"]
    distance, total = farthest(emulated, own), sum(sum(counts.values()) for counts in executed.values())
    evidence = "\n".join(json.dumps(part) for part in (executed, emulated["tokens"], own["tokens"]))
    if fault := _fault(set(executed), distance, floor):
        return convicted(fault, evidence=evidence, remedy="see the evidence; look at the kernels")
    line = (
        f"emulated, so nothing about speed: {len(emulated['tokens'])} tokens of a tiny Mixtral took {total} AMX"
        f" instructions; likelihoods differ by at most {distance:.3f} from those without AMX"
    )
    return passed(line, evidence=evidence, amx_instructions=total)


def _fault(executed: AbstractSet[str], distance: float, floor: Sequence[str]) -> str:
    promised = {name for each in variants().values() if each.floor == tuple(floor) for name in each.promises}
    if above := sorted(executed - promised):
        return f"executes instructions above its level: {', '.join(above)}"
    if unused := sorted(name for name in promised - executed if name.startswith("AMX_")):
        return f"told that there is AMX, it executes no instruction of {', '.join(unused)}"
    if distance > TOLERANCE:
        return f"computes something else with AMX than without: likelihoods differ by up to {distance:.2f}"
    return ""


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        "emulated-amx",
        "let a tiny model generate tokens with emulated AMX, and without",
        convicting_in_full(_emulated),
        severity="warning",
        needs=(INSTALLS,),
        seconds=120,
        commands=_commands,
        inputs=("floor", "judged_as", "lacking", "variant"),
        tools=(),
    ),
)
