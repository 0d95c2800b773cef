"""vLLM chooses the CPU platform by itself."""

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.runs.probing import probe, probed
from vllm_wheels.core.verify.test_run import CPU_PLATFORM, IMPORTS, TestRun

RENAMED = "repair the places that ask importlib.metadata for the distribution vllm"


def _judge(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    if seen["told"] is not None:
        what = "the platform was not vLLM's own choice"
        raise CannotVerifyError(what, why=f"VLLM_TARGET_DEVICE is {seen['told']}", remedy="report this as a defect")
    if seen["is_cpu"] and seen["device_type"] == "cpu":
        return passed(f"vLLM chooses {seen['platform']} without being told")
    line = f"vLLM chooses {seen['platform']} ({seen['device_type'] or 'no device type'})"
    return convicted(line, remedy=RENAMED)


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        CPU_PLATFORM,
        "ask vLLM for its platform",
        probed(_judge),
        needs=(IMPORTS,),
        seconds=20,
        commands=probe("cpu_platform.py"),
    ),
)
