"""No distribution called vllm is installed beside the wheel, which would hide what a renamed wheel breaks."""

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.runs.probing import probe, probed
from vllm_wheels.core.verify.test_run import INSTALLS, TestRun

UPSTREAM = "vllm"


def _judge(test_run: TestRun, seen: Mapping[str, Any]) -> Judgement:
    if UPSTREAM not in seen["names"]:
        return passed("no distribution called vllm is installed")
    if test_run.distribution == UPSTREAM:
        return passed("the wheel itself, and nothing else, is called vllm")
    line = "a distribution called vllm is installed beside the wheel, and hides what a renamed wheel breaks"
    return convicted(line, remedy="do not require or ship a distribution called vllm")


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        "no-vllm-dist-info",
        "look for a distribution called vllm",
        probed(_judge),
        needs=(INSTALLS,),
        seconds=1,
        commands=probe("distributions.py"),
    ),
)
