"""Starts the installed wheel on a CPU that pretends to have nothing: it must end in one line, not in an instruction."""

from __future__ import annotations

from vllm_wheels.core.settings import GUARD_VARIABLE
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.trial import Trial, last_lines

INSTALLS = "installs"
PRETENDED = {GUARD_VARIABLE: "fpu sse2"}
"""Flags of the first x86-64 CPUs."""

REMEDY = "put the guard into the wheel and call it before anything else is imported (patches/guard.py)"


def _refuses(trial: Trial) -> Judgement:
    if not trial.floor:
        return skipped("nobody knows which CPU it needs")
    starts = (
        ("import vllm", [f"{trial.programs}/python", "-I", "-c", "import vllm"]),
        ("vllm", [f"{trial.programs}/vllm", "--version"]),
    )
    wanted = f"needs a CPU with {', '.join(trial.floor)}, which this one does not have"
    for shown, argv in starts:
        finished = trial.run(argv, env=PRETENDED)
        line = next((each for each in reversed(finished.output.splitlines()) if each.strip()), "it says nothing")
        if finished.status != 1 or wanted not in line:
            found = f"{shown} on a CPU without {trial.floor[0]} ends with status {finished.status}: {line}"
            return convicted(found, evidence=last_lines(finished.output), remedy=REMEDY)
    return passed(f"on a lesser CPU it stops: {line}")


CHECKS: tuple[Check[Trial], ...] = (
    Check(
        name="refuses-lesser-cpu",
        title="start it on a CPU that pretends to be of the first",
        judge=_refuses,
        needs=(INSTALLS,),
        seconds=2,
    ),
)
