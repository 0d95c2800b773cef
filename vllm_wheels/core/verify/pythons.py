"""Finds the Pythons on which this machine can run a wheel."""

import sys
from collections.abc import Callable
from pathlib import Path

from uv import find_uv_bin

from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.errors import CannotVerifyError, MachineError, StepTimeoutError, UnsupportedPythonError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.verify.locations import TestLocation

PYTHON_SECONDS = 60.0
ROOT = Path("/")


def host_python(version: str, runner: Runner) -> str:
    """Path of a Python of this host; nothing is downloaded."""
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        return sys.executable
    search = ["python", "find", "--quiet", "--no-project", "--no-python-downloads", version]
    # In the caller's folder a .venv of anybody would be asked first.
    found = runner.run([find_uv_bin(), *search], cwd=ROOT, timeout_seconds=PYTHON_SECONDS, keep_output=True, quiet=True)
    path = found.output.strip().splitlines()[-1:]
    if found.status == 0 and path:
        return path[0]
    what = f"there is no Python {version} on this host"
    # A pyenv that is asked on the way says more, which is no reason.
    why = next((line.strip() for line in found.output.splitlines() if "interpreter" in line), "uv finds none")
    remedy = f"install it (uv python install {version}), or set smoke.location = container"
    raise CannotVerifyError(what, why=why, remedy=remedy)


def obstacle(
    version: str, location: TestLocation, *, runner: Runner, find_builder: Callable[[], Builder]
) -> str | None:
    """Why a wheel cannot be run on a Python in a location, in one line; None where it can."""
    try:
        if location.kind == "container":
            find_builder().python(version)
        else:
            host_python(version, runner)
    except (CannotVerifyError, UnsupportedPythonError, MachineError, StepTimeoutError) as error:
        return f"{error.what}: {error.why}"
    return None
