"""The checks that try an installed wheel, as a table: what is looked at, what it needs, and how it is judged."""

from __future__ import annotations

import re
import signal
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.patches.cpu_guard import FLAGS_VARIABLE
from vllm_wheels.core.patches.guard import GUARD
from vllm_wheels.core.verify import amx, emulation
from vllm_wheels.core.verify.checks import Check, Judgement, Premises, convicted, passed, skipped
from vllm_wheels.core.verify.install import agree, complete, install, to_check, to_install
from vllm_wheels.core.verify.test_run import (
    HERE,
    INSTALLS,
    PROGRAMS,
    TestRun,
    answer,
    answer_lines,
    last_lines,
    shut_in,
)

CPUINFO = Path("/proc/cpuinfo")
TORCH_COMPANIONS = ("torchvision", "torchaudio")
UPSTREAM = "vllm"
CUDA_PART = re.compile(r"(nvidia|cuda)-.+")
LOCAL_TORCH = re.compile(r"torch\s*\(?={2,3}\s*[\w.!]+\+(?P<local>\w+)", re.IGNORECASE)
"""A requirement of one build of torch; its kind is in the local part of the version."""

RAISED = re.compile(r"(?:^|\s)(?P<error>(?:\w+\.)*\w*(?:Error|Exception)(?:: .+)?)$")
"""The line of a traceback that names the exception."""

TOKENS = 32
VOCABULARY = 1024
SHELL_SIGNAL = 128
"""A status above this is a signal's number plus this (POSIX shells; container engines do the same)."""

SIGNALS = {int(number): number.name for number in signal.Signals}

CPU_TORCH = 'let torch come from an index of CPU builds: torch.backend = "cpu", or index.find_links with a +cpu wheel'
RENAMED = "repair the places that ask importlib.metadata for the distribution vllm"


def lacking(floor: Sequence[str]) -> tuple[str, ...]:
    """The flags of a variant's floor that this machine's processor does not have."""
    line = next((each for each in CPUINFO.read_text("utf-8").splitlines() if each.startswith("flags")), "")
    present = set(line.partition(":")[2].split())
    return tuple(flag for flag in floor if flag not in present)


def _processor(test_run: TestRun) -> Judgement:
    if missing := lacking(test_run.floor):
        what = f"this machine's processor lacks {', '.join(missing)}"
        raise CannotVerifyError(
            what, why="the wheel is for processors that have it", remedy="verify it on such a machine"
        )
    return Judgement(
        verdict="passed", line=f"this machine has what the wheel needs: {', '.join(test_run.floor) or 'any'}"
    )


def _probe(script: str, *arguments: str, **env: str) -> tuple[Invocation, ...]:
    # Isolated, so that the folder of the probes is not searched for modules.
    return (shut_in(f"{PROGRAMS}/python", "-I", f"{HERE}/probes/{script}", *arguments, **env),)


def _command(*arguments: str, **env: str) -> tuple[Invocation, ...]:
    return (shut_in(f"{PROGRAMS}/vllm", *arguments, **env),)


def _probed(judge: Callable[[TestRun, Mapping[str, Any]], Judgement]) -> Callable[[TestRun], Judgement]:
    """Runs a probe in the test run's environment, and judges what it saw; a probe that dies convicts."""
    return lambda test_run: _seen(test_run, judge)


def _started(test_run: TestRun) -> Finished:
    (command,) = test_run.commands
    return test_run.start(command)


def _seen(test_run: TestRun, judge: Callable[[TestRun, Mapping[str, Any]], Judgement]) -> Judgement:
    finished = _started(test_run)
    lines = answer_lines(finished)
    if finished.status != 0 or not lines:
        return _died(finished)
    return replace(judge(test_run, answer(lines[-1])), evidence=lines[-1])


def _died(finished: Finished) -> Judgement:
    """Judges a program that should have ended well.

    Raises:
        CannotVerifyError: it was killed, nearly always for lack of memory.
    """
    number = -finished.status if finished.status < 0 else finished.status - SHELL_SIGNAL
    name = SIGNALS.get(number)
    if name == "SIGKILL":
        what = "the program was killed"
        raise CannotVerifyError(what, why="nearly always for lack of memory", remedy="free memory, then verify again")
    ending = f"died of {name}" if name else f"ended with status {finished.status}"
    causes = _causes(finished.output)
    evidence = "\n".join([*causes, "", last_lines(finished.output)])
    line = f"{ending}: {causes[0]}" if causes else ending
    remedy = "see the evidence; the whole output is in smoke.log"
    return Judgement(verdict="convicted", line=line, evidence=evidence, remedy=remedy)


def _causes(output: str) -> list[str]:
    """What went wrong by the program's own words, the root first.

    vLLM's processes log as ERROR what ended them, the first cause first, before the main process raises a summary.
    """
    raised = [match for line in output.splitlines() if (match := RAISED.search(line)) and " WARNING " not in line]
    logged = [match["error"] for match in raised if " ERROR " in match.string]
    others = [match["error"] for match in reversed(raised) if " ERROR " not in match.string]
    last = [line.strip() for line in output.splitlines() if line.strip()][-1:]
    return list(dict.fromkeys([*logged, *others])) or last


def _judge_shim(test_run: TestRun, seen: Mapping[str, Any]) -> Judgement:
    if UPSTREAM not in seen["names"]:
        return Judgement(verdict="passed", line="no distribution called vllm is installed")
    if test_run.distribution == UPSTREAM:
        return Judgement(verdict="passed", line="the wheel itself, and nothing else, is called vllm")
    line = "a distribution called vllm is installed beside the wheel, and hides what a renamed wheel breaks"
    return Judgement(verdict="convicted", line=line, remedy="do not require or ship a distribution called vllm")


def _judge_torch(test_run: TestRun, seen: Mapping[str, Any]) -> Judgement:
    if not seen["version"].endswith("+cpu") and not _asks_for_no_cpu_build(test_run.wheel):
        what = "no CPU build of the torch that it requires is in reach"
        raise CannotVerifyError(what, why=f"torch {seen['version']} was installed", remedy=CPU_TORCH)
    parts = [name for name in seen["names"] if CUDA_PART.fullmatch(name)]
    faults = {
        f"torch is {seen['version']}, not +cpu": not seen["version"].endswith("+cpu"),
        f"torch is built for CUDA {seen['cuda']}": seen["cuda"] is not None,
        "torch sees a CUDA device": seen["available"],
        f"parts of CUDA are installed: {', '.join(parts)}": parts,
    }
    return _unless(faults, remedy=CPU_TORCH, otherwise=passed(f"torch is {seen['version']}"))


def _asks_for_no_cpu_build(wheel: Path) -> bool:
    """Is it the wheel's own spec: a plain version is met by a CPU build as well, wherever an index offers one."""
    lines = WheelFile.read(wheel).metadata.get_all("Requires-Dist", [])
    pins = (match["local"] for line in lines if (match := LOCAL_TORCH.match(str(line))))
    return any(local != "cpu" for local in pins)


def _unless(faults: Mapping[str, object], *, remedy: str, otherwise: Judgement) -> Judgement:
    """Convicts for the faults that are there."""
    wrong = "; ".join(text for text, is_so in faults.items() if is_so)
    return convicted(wrong, remedy=remedy) if wrong else otherwise


def _of_companions(premises: Premises) -> tuple[Invocation, ...]:
    wanted = [name for name in TORCH_COMPANIONS if name not in premises.left_out]
    return _probe("companions.py", *wanted) if wanted else ()


def _companions(test_run: TestRun) -> Judgement:
    if not test_run.commands:
        return skipped(f"left out: {', '.join(TORCH_COMPANIONS)}")
    return _seen(test_run, _judge_companions)


def _judge_companions(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    return passed(f"imports {', '.join(f'{name} {version}' for name, version in seen['versions'].items())}")


def _refuses(test_run: TestRun) -> Judgement:
    with zipfile.ZipFile(test_run.wheel) as archive:
        if GUARD not in archive.namelist():
            return skipped("the wheel has no guard")
    finished = _started(test_run)
    said = [line for line in finished.output.splitlines() if line.strip()]
    if finished.status == 1 and len(said) == 1 and test_run.distribution in said[0]:
        return passed(f"on a lesser CPU it says: {said[0]}")
    line = f"on a lesser CPU it ends with status {finished.status} and says {said[-1] if said else 'nothing'}"
    remedy = "let vllm/__init__.py import the guard before anything else"
    return convicted(line, evidence=last_lines(finished.output), remedy=remedy)


def _grave(judge: Callable[[TestRun], Judgement]) -> Callable[[TestRun], Judgement]:
    """A check that may be left open, for want of a tool, and leaves no wheel open; its conviction counts in full."""

    def carry_out(test_run: TestRun) -> Judgement:
        found = judge(test_run)
        return replace(found, severity="error") if found.verdict == "convicted" else found

    return carry_out


def _judge_import(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    line = f"import vllm works in {seen['seconds']} s and says {seen['version']}"
    return Judgement(verdict="passed", line=line, measures={"import_seconds": seen["seconds"]})


def _version_command(test_run: TestRun) -> Judgement:
    finished = _started(test_run)
    if finished.status != 0:
        return _died(finished)
    wanted = Version(test_run.version).base_version
    if wanted in {_base_version(word) for word in finished.output.split()}:
        return Judgement(verdict="passed", line=f"vllm --version says {wanted}", evidence=last_lines(finished.output))
    line = f"vllm --version does not say {wanted}"
    remedy = "give the build the release's version (VLLM_VERSION_OVERRIDE)"
    return Judgement(verdict="convicted", line=line, evidence=last_lines(finished.output), remedy=remedy)


def _base_version(word: str) -> str | None:
    try:
        return Version(word).base_version
    except InvalidVersion:
        return None


def _serve_help(test_run: TestRun) -> Judgement:
    finished = _started(test_run)
    if finished.status != 0:
        return _died(finished)
    return Judgement(verdict="passed", line="vllm serve --help works", evidence=last_lines(finished.output, 5))


def _judge_platform(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    if seen["told"] is not None:
        what = "the platform was not vLLM's own choice"
        raise CannotVerifyError(what, why=f"VLLM_TARGET_DEVICE is {seen['told']}", remedy="report this as a defect")
    if seen["is_cpu"] and seen["device_type"] == "cpu":
        return Judgement(verdict="passed", line=f"vLLM chooses {seen['platform']} without being told")
    line = f"vLLM chooses {seen['platform']} ({seen['device_type'] or 'no device type'})"
    return Judgement(verdict="convicted", line=line, remedy=RENAMED)


def _judge_tokens(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    first, second = seen["tokens"]
    outside = [token for token in first if not 0 <= token < VOCABULARY]
    faults = {
        f"{len(first)} tokens in place of {TOKENS}": len(first) != TOKENS,
        "the second run gave other tokens": first != second,
        f"tokens outside the vocabulary: {outside}": outside,
        "a token's likelihood is not a number": not seen["finite"],
    }
    speed = seen["tokens_per_second"]
    line = f"a tiny Llama generates {TOKENS} tokens, twice the same, {speed} a second"
    return _unless(faults, remedy="see smoke.log; look at the kernels", otherwise=passed(line, tokens_per_second=speed))


def _generate(test_run: TestRun) -> Judgement:
    if not test_run.commands:
        return Judgement(verdict="skipped", line="smoke.generate is off")
    return _seen(test_run, _judge_tokens)


def _of_generation(premises: Premises) -> tuple[Invocation, ...]:
    return _probe("generation.py", VLLM_CPU_KVCACHE_SPACE="1") if premises.settings.smoke.generate else ()


CHECKS: tuple[Check[TestRun], ...] = (
    Check(name="processor", title="look at this machine's processor", judge=_processor, seconds=0),
    Check(
        name=INSTALLS,
        title="install the wheel and all that it requires",
        judge=install,
        seconds=30,
        commands=to_install,
    ),
    Check(
        name="complete",
        title="name what was left out",
        judge=complete,
        needs=(INSTALLS,),
        seconds=1,
        commands=to_check,
    ),
    Check(
        name="requirements-agree",
        title="compare all installed requirements",
        judge=agree,
        needs=(INSTALLS,),
        seconds=1,
        commands=to_check,
    ),
    Check(
        name="no-vllm-dist-info",
        title="look for a distribution called vllm",
        judge=_probed(_judge_shim),
        needs=(INSTALLS,),
        seconds=1,
        commands=_probe("distributions.py"),
    ),
    Check(
        name="torch-is-cpu",
        title="look which torch is installed",
        judge=_probed(_judge_torch),
        needs=(INSTALLS,),
        seconds=5,
        commands=_probe("torch_build.py"),
    ),
    Check(
        name="torch-companions",
        title="import torchvision and torchaudio",
        judge=_companions,
        needs=("torch-is-cpu",),
        seconds=10,
        commands=_of_companions,
    ),
    Check(
        name="guard-refuses",
        title="pretend to have a lesser CPU",
        judge=_refuses,
        needs=(INSTALLS,),
        seconds=1,
        # A CPU that has nothing; the guard takes the variable for /proc/cpuinfo.
        commands=_command("--version", **{FLAGS_VARIABLE: "fpu"}),
    ),
    Check(
        name="imports",
        title="import vllm",
        judge=_probed(_judge_import),
        needs=("processor", INSTALLS),
        seconds=20,
        commands=_probe("importing.py"),
    ),
    Check(
        name="command-version",
        title="run vllm --version",
        judge=_version_command,
        needs=("imports",),
        seconds=20,
        commands=_command("--version"),
    ),
    Check(
        name="command-serve-help",
        title="run vllm serve --help",
        judge=_serve_help,
        needs=("imports",),
        seconds=20,
        commands=_command("serve", "--help"),
    ),
    Check(
        name="cpu-platform",
        title="ask vLLM for its platform",
        judge=_probed(_judge_platform),
        needs=("imports",),
        seconds=20,
        commands=_probe("cpu_platform.py"),
    ),
    Check(
        name="generates-tokens",
        title="let a tiny model generate tokens",
        judge=_generate,
        needs=("cpu-platform",),
        seconds=60,
        commands=_of_generation,
    ),
    *(replace(check, judge=_grave(check.judge), severity="warning") for check in (*emulation.CHECKS, *amx.CHECKS)),
)
