"""All Python code compiles on the oldest Python that the wheel claims."""

import json
import sys
from pathlib import Path

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.commands import PYTHON, Invocation
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed
from vllm_wheels.core.verify.pythons import host_python
from vllm_wheels.core.verify.unpacked import UnpackedWheel

PROBE = Path(__file__).with_name("probes") / "compiling.py"
TOOL_SECONDS = 600.0

UNPACKED, OLDEST = "{unpacked}", "{oldest python}"
"""Stand in a plan for the wheel's files, and for the oldest Python that it claims."""

COMPILE = Invocation(argv=(PYTHON, "-I", "-X", "utf8", str(PROBE), UNPACKED, OLDEST))


def _compiles(unpacked: UnpackedWheel) -> Judgement:
    if not unpacked.claims:
        line = "no Python from 3.8 to 3.14 can install it"
        return convicted(line, remedy="correct the tags or Requires-Python, which exclude each other")
    oldest = unpacked.claims[0]
    try:
        interpreter, beside = host_python(oldest, unpacked.runner), ""
    except CannotVerifyError:
        interpreter, beside = sys.executable, f", as far as {sys.version_info.major}.{sys.version_info.minor} can tell"
    command = COMPILE.filled({PYTHON: interpreter, UNPACKED: str(unpacked.folder), OLDEST: oldest})
    finished = unpacked.tool(command, timeout_seconds=TOOL_SECONDS)
    if finished.status != 0:
        what = f"{interpreter} could not compile the code"
        why = (finished.tail or ("it said nothing",))[-1]
        raise CannotVerifyError(what, why=why, remedy=f"reinstall Python {oldest}")
    seen = json.loads(finished.output.splitlines()[-1])
    if faults := seen["faults"]:
        remedy = f"raise Requires-Python above {oldest}, or write what it understands"
        return convicted_of(faults, before=f"on Python {oldest}{beside}: ", remedy=remedy)
    return passed(f"{seen['files']} files compile on Python {oldest}{beside}")


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "python-compiles",
        "compile the Python code on the oldest Python",
        _compiles,
        seconds=6,
        commands=(COMPILE,),
        inputs=("interpreter",),
    ),
)
