"""torchvision and torchaudio, which must be built for the installed torch, can be imported."""

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.verify.checks import Check, Judgement, RunOptions, passed, skipped
from vllm_wheels.core.verify.runs.probing import judge_probe, probe
from vllm_wheels.core.verify.test_run import TORCH_IS_CPU, TestRun

IMPORTED = ("torchvision", "torchaudio")


def _commands(options: RunOptions) -> tuple[Invocation, ...]:
    wanted = [name for name in IMPORTED if name not in options.left_out]
    return probe("sidecars.py", *wanted) if wanted else ()


def _sidecars(test_run: TestRun) -> Judgement:
    if not test_run.commands:
        return skipped(f"left out: {', '.join(IMPORTED)}")
    return judge_probe(test_run, _judge)


def _judge(_: TestRun, seen: Mapping[str, Any]) -> Judgement:
    return passed(f"imports {', '.join(f'{name} {version}' for name, version in seen['versions'].items())}")


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        "torch-companions",
        "import torchvision and torchaudio",
        _sidecars,
        needs=(TORCH_IS_CPU,),
        seconds=10,
        commands=_commands,
    ),
)
