"""This machine's CPU has the variant's floor, without which other test runs prove nothing."""

from collections.abc import Sequence
from pathlib import Path

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.verify.checks import Check, Judgement, passed
from vllm_wheels.core.verify.test_run import PROCESSOR, TestRun

CPUINFO = Path("/proc/cpuinfo")


def lacking(floor: Sequence[str]) -> tuple[str, ...]:
    """The flags of a variant's floor that this machine's processor does not have."""
    line = next((each for each in CPUINFO.read_text("utf-8").splitlines() if each.startswith("flags")), "")
    present = set(line.partition(":")[2].split())
    return tuple(flag for flag in floor if flag not in present)


def _processor(test_run: TestRun) -> Judgement:
    if missing := lacking(test_run.floor):
        what = f"this machine's processor lacks {', '.join(missing)}"
        remedy = "verify it on such a machine"
        raise CannotVerifyError(what, why="the wheel is for processors that have it", remedy=remedy)
    return passed(f"this machine has what the wheel needs: {', '.join(test_run.floor) or 'any'}")


CHECKS: tuple[Check[TestRun], ...] = (
    Check(PROCESSOR, "look at this machine's processor", _processor, seconds=0, inputs=("floor", "lacking"), tools=()),
)
