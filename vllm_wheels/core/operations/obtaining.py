"""Tells how a wheel of this project is had and installed: from a folder, from where it is published, or by building."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uv

from vllm_wheels.core.engine.run_cache import current
from vllm_wheels.core.formats.wheel_name import sidecar, wheels_in
from vllm_wheels.core.index.arguments import index_arguments
from vllm_wheels.core.index.repositories import repository
from vllm_wheels.core.names import distributions
from vllm_wheels.core.texts import redacted
from vllm_wheels.core.verify.runs.installation import left_out

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings

OVERRIDES = "overrides.txt"
ENVIRONMENT = "vllm"
"""Name of the environment that the printed command makes; one of the wheel's own, as vLLM pins much."""


def way_to(settings: Settings, variant: str) -> str:
    """One line that tells how to get this project's wheel of a variant; it names no package that is not ours."""
    distribution = distributions(settings)[variant]
    if wheel := _newest(settings.output_folder, distribution):
        return f"install: {installing(settings, wheel)}"
    if settings.publish.repository:
        index = repository(settings, settings.publish.repository).shown
        backend = () if settings.publish.torch_links else ("--torch-backend", "cpu")
        return f"install: {shlex.join(['uv', 'pip', 'install', *backend, '--index', index, distribution])}"
    return f"no wheel of it is here or published yet; build it: vllm-wheels build --variant {variant}"


def installing(settings: Settings, wheel: Path) -> str:
    """The command that installs a wheel of this machine as the test run did: from the same places.

    What is left out, because no CPU build of it is in reach, is written into a file beside the wheel, which uv reads.
    """
    made = next((artifact for name, artifact in current().artifacts.items() if name[0] == "torch_env"), None)
    backend = made.details["backend"] if made else "cpu" if settings.torch.backend == "cpu" else None
    without = left_out(settings, unavailable=made.facts["left_out"] if made else ())
    words = [redacted(word) for word in index_arguments(settings, os.environ)]
    client = "uv" if shutil.which("uv") else uv.find_uv_bin()
    chosen = ("--torch-backend", backend) if backend else ()
    excused = ("--overrides", str(_written(wheel, without))) if without else ()
    install = [client, "pip", "install", "--python", ENVIRONMENT, *chosen, *words, *excused, str(wheel)]
    return f"{shlex.join([client, 'venv', ENVIRONMENT])} && {shlex.join(install)}"


def _written(wheel: Path, without: Sequence[str]) -> Path:
    path = sidecar(wheel, OVERRIDES)
    path.write_text("".join(f'{name} ; sys_platform == "never"\n' for name in without), "utf-8")
    return path


def _newest(folder: Path, distribution: str) -> Path | None:
    name = distribution.replace("-", "_")
    found = [wheel for wheel in wheels_in(folder) if wheel.name.partition("-")[0] == name] if folder.is_dir() else []
    return max(found, key=lambda wheel: wheel.stat().st_mtime, default=None)
