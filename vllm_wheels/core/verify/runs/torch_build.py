"""The torch that was installed is a CPU build, and nothing of CUDA came with it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.verify.checks import Check, Judgement, passed
from vllm_wheels.core.verify.runs.probing import convict_if, probe, probed
from vllm_wheels.core.verify.test_run import INSTALLS, TORCH_IS_CPU, TestRun

CUDA_PART = re.compile(r"(nvidia|cuda)-.+")
LOCAL_TORCH = re.compile(r"torch\s*\(?={2,3}\s*[\w.!]+\+(?P<local>\w+)", re.IGNORECASE)
"""A requirement of one build of torch; its kind is in the local part of the version."""

CPU_TORCH = 'let torch come from an index of CPU builds: torch.backend = "cpu", or index.find_links with a +cpu wheel'


def _judge(test_run: TestRun, seen: Mapping[str, Any]) -> Judgement:
    if not seen["version"].endswith("+cpu") and not _asks_for_no_cpu_build(test_run.wheel):
        what = "no CPU build of the torch that it requires was found"
        raise CannotVerifyError(what, why=f"torch {seen['version']} was installed", remedy=CPU_TORCH)
    parts = [name for name in seen["names"] if CUDA_PART.fullmatch(name)]
    faults = {
        f"torch is {seen['version']}, not +cpu": not seen["version"].endswith("+cpu"),
        f"torch is built for CUDA {seen['cuda']}": seen["cuda"] is not None,
        "torch sees a CUDA device": seen["available"],
        f"parts of CUDA are installed: {', '.join(parts)}": parts,
    }
    return convict_if(faults, remedy=CPU_TORCH, otherwise=passed(f"torch is {seen['version']}"))


def _asks_for_no_cpu_build(wheel: Path) -> bool:
    """Whether the wheel itself requires another build; a plain version is met by a CPU build as well."""
    lines = WheelFile.read(wheel).metadata.get_all("Requires-Dist", [])
    pins = (match["local"] for line in lines if (match := LOCAL_TORCH.match(str(line))))
    return any(local != "cpu" for local in pins)


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        TORCH_IS_CPU,
        "look which torch is installed",
        probed(_judge),
        needs=(INSTALLS,),
        seconds=5,
        commands=probe("torch_build.py"),
    ),
)
