"""``import vllm`` works."""

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.verify.checks import Check, Judgement, passed
from vllm_wheels.core.verify.runs.probing import probe, probed
from vllm_wheels.core.verify.test_run import IMPORTS, INSTALLS, PROCESSOR, TestRun


def _judge(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    line = f"import vllm works in {seen['seconds']} s and says {seen['version']}"
    return passed(line, import_seconds=seen["seconds"])


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        IMPORTS, "import vllm", probed(_judge), needs=(PROCESSOR, INSTALLS), seconds=20, commands=probe("importing.py")
    ),
)
