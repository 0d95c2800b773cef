"""A stable-ABI tag holds for every extension: abi3audit's findings, and file names that every Python can import."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.elf import Binary
from vllm_wheels.core.host.commands import EXTENSIONS, Invocation
from vllm_wheels.core.verify.checks import Check, Judgement, convicted_of, passed, skipped
from vllm_wheels.core.verify.unpacked import UnpackedWheel

TOOL_SECONDS = 300.0
STABLE = "abi3"
ONE_PYTHON = re.compile(r"\.cpython-3\d+-")
"""Suffix of a module that only one Python imports (PEP 3149)."""

REPORT, LOWEST = "{report}", "{lowest python}"
"""Stand in a plan for where abi3audit writes, and for the Python of the wheel's tag."""

AUDIT = Invocation(
    argv=(
        *(sys.executable, "-P", "-m", "abi3audit", "--report", "--output", REPORT, "--assume-minimum-abi3", LOWEST),
        EXTENSIONS,
    ),
    condition="if the wheel's tag claims the stable ABI",
)

REMEDY = (
    "tag the wheel for the lowest Python whose stable ABI all extensions keep to, or build them with --py-limited-api"
)


def _stable(unpacked: UnpackedWheel) -> Judgement:
    tagged = sorted(int(tag.interpreter[3:]) for tag in unpacked.file.tags if tag.abi == STABLE)
    extensions = [binary for binary in unpacked.binaries if binary.extension]
    if not tagged:
        return skipped("the tag does not claim the stable ABI")
    if not extensions:
        return skipped("it holds no extension")
    lowest = f"3.{tagged[0]}"
    bound = [f"{each.name} is for one Python only" for each in extensions if ONE_PYTHON.search(each.name)]
    audited = _audit(unpacked, extensions, lowest)
    faults = bound + [line for each in extensions for line in _faults(each.name, audited[str(each.path)], lowest)]
    if faults:
        return convicted_of(faults, remedy=REMEDY)
    return passed(f"all extensions ({len(extensions)}) keep to the stable ABI of Python {lowest}")


def _audit(unpacked: UnpackedWheel, extensions: Sequence[Binary], lowest: str) -> Mapping[str, Any]:
    with TemporaryDirectory(prefix="vllm-wheels-abi-") as folder:
        report = Path(folder, "report.json")
        paths = [str(each.path) for each in extensions]
        command = AUDIT.filled({REPORT: str(report), LOWEST: lowest, EXTENSIONS: paths})
        finished = unpacked.tool(command, timeout_seconds=TOOL_SECONDS)
        try:
            found = json.loads(report.read_text("utf-8"))["specs"]
            return {name: entry["object"]["result"] for name, entry in found.items()}
        except (OSError, ValueError, KeyError) as error:
            what = "abi3audit did not come to an end"
            why = (finished.tail or ("it said nothing",))[-1]
            raise CannotVerifyError(what, why=why, remedy="run abi3audit on the wheel") from error


def _faults(name: str, result: Mapping[str, Any], lowest: str) -> list[str]:
    faults = []
    if foreign := result["non_abi3_symbols"]:
        faults.append(f"{name} uses what the stable ABI does not have: {', '.join(sorted(foreign))}")
    if later := result["future_abi3_objects"]:
        named = ", ".join(f"{symbol} ({since})" for symbol, since in sorted(later.items()))
        faults.append(f"{name} needs the stable ABI of {result['computed']}, the tag says {lowest}: {named}")
    return faults


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "stable-abi",
        "hold the extensions against the stable ABI",
        _stable,
        seconds=3,
        commands=(AUDIT,),
        tools=("abi3audit", "packaging", "pyelftools"),
    ),
)
