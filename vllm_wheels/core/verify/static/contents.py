"""The wheel holds no stray files, no path that some file system cannot store, and is not larger than needed."""

import re
import sys

from check_wheel_contents.checker import NO_CONFIG, WheelChecker
from check_wheel_contents.checks import Check as Rule
from check_wheel_contents.checks import FailedCheck
from check_wheel_contents.contents import WheelContents
from check_wheel_contents.errors import WheelValidationError

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheelfile import GRAFTED
from vllm_wheels.core.host.commands import WHEEL, Invocation
from vllm_wheels.core.host.limits import WISHED_WHEEL_BYTES
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed
from vllm_wheels.core.verify.finding import Severity
from vllm_wheels.core.verify.unpacked import UnpackedWheel

TOOL_SECONDS = 300.0
BESIDE = "{temporary}"
"""Stands in a plan for the folder in which the wheel is unpacked."""

PYDISTCHECK = "from pydistcheck.cli import check; check()"
"""Runs pydistcheck, which cannot be run with -m."""

IGNORED = {Rule.W002}
"""Duplicate files: vLLM has dozens of equal ``__init__.py``."""

PATH_RULES = (
    "files-only-differ-by-case",
    "path-contains-non-ascii-characters",
    "path-contains-spaces",
    "path-too-long",
    "unexpected-files",
)
PORTABLE = Invocation(
    argv=(
        *(sys.executable, "-P", "-c", PYDISTCHECK),
        *(word for rule in PATH_RULES for word in ("--select", rule)),
        WHEEL,
    ),
    # Away from the working folder and the wheel's own files, or it would take settings from a pyproject.toml there.
    folder=BESIDE,
)

FOUND = re.compile(r"^\d+\. (\[[\w-]+\] .*)$", re.MULTILINE)


def _contents(unpacked: UnpackedWheel) -> Judgement:
    checker = WheelChecker()
    checker.configure_options(configpath=NO_CONFIG, ignore=IGNORED)
    try:
        failures = checker.check_contents(WheelContents.from_wheel(unpacked.path))
    except WheelValidationError as error:
        what = "check-wheel-contents cannot read the wheel"
        raise CannotVerifyError(what, why=str(error), remedy="see the check record") from error
    failures = [each for each in failures if not _of_grafted(each)]
    if not failures:
        return passed("check-wheel-contents has nothing to say, W002 (equal files) aside")
    line = "; ".join(f"{each.check.name}: {each.check.value}" for each in failures)
    evidence = "\n".join(each.show() for each in failures)
    # Python may run byte code in place of the source beside it, whatever that says.
    severity: Severity | None = "error" if Rule.W001 in {each.check for each in failures} else None
    return convicted(line, evidence=evidence, remedy="leave these files out of the package", severity=severity)


def _of_grafted(failure: FailedCheck) -> bool:
    """Whether it is only about the ``.libs`` folder into which auditwheel grafts libraries."""
    others = [name for name in failure.args if not name.rstrip("/").endswith(GRAFTED.rstrip("/"))]
    return failure.check in {Rule.W009, Rule.W010} and len(others) <= (failure.check is Rule.W009)


def _paths(unpacked: UnpackedWheel) -> Judgement:
    command = PORTABLE.filled({WHEEL: str(unpacked.path), BESIDE: str(unpacked.folder.parent)})
    finished = unpacked.tool(command, timeout_seconds=TOOL_SECONDS)
    found = FOUND.findall(finished.output)
    if finished.status == 0:
        return passed("pydistcheck finds every path portable")
    if not found:
        what = "pydistcheck did not come to an end"
        why = (finished.tail or ("it said nothing",))[-1]
        raise CannotVerifyError(what, why=why, remedy="install it anew")
    return convicted_of(found, remedy="rename these files, or leave them out")


def _size(unpacked: UnpackedWheel) -> Judgement:
    size = unpacked.path.stat().st_size
    line = f"{size / 1e6:.1f} MB, {sum(unpacked.file.members.values()) / 1e6:.1f} MB once installed"
    if size <= WISHED_WHEEL_BYTES:
        return passed(line, megabytes=size / 1e6)
    remedy = "build with CMAKE_BUILD_TYPE=Release, strip the extensions, and ship one variant's code only"
    return convicted(
        f"{line}; {WISHED_WHEEL_BYTES / 1e6:.0f} MB are enough for a CPU wheel", remedy=remedy, megabytes=size / 1e6
    )


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "contents",
        "look for files that do not belong there",
        _contents,
        severity="warning",
        tools=("check-wheel-contents",),
    ),
    Check(
        "portable-paths",
        "look at the files' paths",
        _paths,
        severity="warning",
        seconds=2,
        commands=(PORTABLE,),
        tools=("pydistcheck",),
    ),
    Check("size", "compare the size with what is needed", _size, severity="warning"),
)
