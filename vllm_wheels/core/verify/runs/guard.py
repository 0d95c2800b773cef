"""On a CPU below its level the wheel stops with one line that names it, before any of its machine code runs."""

import zipfile

from vllm_wheels.core.patches.cpu_guard import FLAGS_VARIABLE
from vllm_wheels.core.patches.guard_files import GUARD
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.runs.probing import run, vllm
from vllm_wheels.core.verify.test_run import INSTALLS, TestRun, last_lines


def _refuses(test_run: TestRun) -> Judgement:
    with zipfile.ZipFile(test_run.wheel) as archive:
        if GUARD not in archive.namelist():
            return skipped("the wheel has no guard")
    finished = run(test_run)
    said = [line for line in finished.output.splitlines() if line.strip()]
    if finished.status == 1 and len(said) == 1 and test_run.distribution in said[0]:
        return passed(f"on a lesser CPU it says: {said[0]}")
    line = f"on a lesser CPU it ends with status {finished.status} and says {said[-1] if said else 'nothing'}"
    remedy = "let vllm/__init__.py import the guard before anything else"
    return convicted(line, evidence=last_lines(finished.output), remedy=remedy)


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        "guard-refuses",
        "pretend to have a lesser CPU",
        _refuses,
        needs=(INSTALLS,),
        seconds=1,
        # A CPU that has nothing; the guard takes the variable for /proc/cpuinfo.
        commands=vllm("--version", **{FLAGS_VARIABLE: "fpu"}),
    ),
)
