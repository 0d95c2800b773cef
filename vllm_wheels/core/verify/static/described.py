"""METADATA is valid, its description renders and tells how to install the package."""

import re
import sys
from pathlib import Path

from packaging.metadata import InvalidMetadata, Metadata
from packaging.utils import canonicalize_name

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.commands import WHEEL, Invocation
from vllm_wheels.core.verify.checks import METADATA_VALID, Check, Judgement, convicted, convicted_of, passed
from vllm_wheels.core.verify.unpacked import UnpackedWheel

PROBE = Path(__file__).with_name("probes") / "rendering.py"
TOOL_SECONDS, RENDER_SECONDS = 120.0, 30.0
METADATA = "{metadata}"
"""Stands in a plan for the file METADATA of the wheel."""

RENDER = Invocation(argv=(sys.executable, "-P", str(PROBE), METADATA))
TWINE = Invocation(
    argv=(sys.executable, "-P", "-m", "twine", "check", "--strict", WHEEL),
    environment={"NO_COLOR": "1", "COLUMNS": "200"},
)
SAID = re.compile(r"^Checking .*(?:PASSED|FAILED)", re.MULTILINE)
"""What twine says of a file that it has read."""

COMMAND = re.compile(r"\b(?:pip3?|uv|pipx|poetry|pdm)\b[^\n`]*?\b(?:install|add)\b(?P<rest>[^\n`]*)")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _valid(unpacked: UnpackedWheel) -> Judgement:
    text = (unpacked.folder / unpacked.file.dist_info / "METADATA").read_bytes()
    try:
        found = Metadata.from_email(text, validate=True)
    except ExceptionGroup as group:
        faults = [f"{error.field}: {error}" for error in group.exceptions if isinstance(error, InvalidMetadata)]
        faults = faults or [str(error) for error in group.exceptions]
        remedy = "correct these fields of METADATA (core metadata specification)"
        return convicted_of(faults, remedy=remedy)
    return passed(f"core metadata {found.metadata_version}")


def _renders(unpacked: UnpackedWheel) -> Judgement:
    remedy = "correct the long description and Description-Content-Type"
    command = TWINE.filled({WHEEL: str(unpacked.path)})
    finished = unpacked.tool(command, timeout_seconds=TOOL_SECONDS)
    if finished.status != 0 and not SAID.search(finished.output):
        what = "twine did not come to an end"
        raise CannotVerifyError(what, why=(finished.tail or ("it said nothing",))[-1], remedy="install it anew")
    if finished.status != 0:
        said = [line.strip() for line in finished.output.splitlines() if line.strip()]
        return convicted(f"twine check: {(said or ['failed'])[-1]}", evidence="\n".join(said), remedy=remedy)
    kind = str(unpacked.file.metadata["Description-Content-Type"] or "").partition(";")[0].strip()
    # twine renders no Markdown, which it takes for something that cannot fail.
    if kind == "text/markdown" and not _rendered(unpacked):
        return convicted("the description does not render as Markdown", remedy=remedy)
    return passed(f"the description renders as {kind or 'text'}")


def _rendered(unpacked: UnpackedWheel) -> bool:
    metadata = unpacked.folder / unpacked.file.dist_info / "METADATA"
    finished = unpacked.tool(RENDER.filled({METADATA: str(metadata)}), timeout_seconds=RENDER_SECONDS)
    if finished.status != 0:
        what = "the renderer of Markdown did not come to an end"
        raise CannotVerifyError(what, why=(finished.tail or ("it said nothing",))[-1], remedy="install it anew")
    return finished.output.strip() == str(True)


def _instructions(unpacked: UnpackedWheel) -> Judgement:
    for match in COMMAND.finditer(unpacked.description):
        # An extra, a version or an end of sentence may follow a name.
        if unpacked.distribution in {canonicalize_name(word.rstrip(".")) for word in WORD.findall(match["rest"])}:
            return passed("the description tells how to install it", evidence=match[0].strip())
    line = f"the description does not tell how to install {unpacked.distribution}"
    remedy = f"put a line like 'pip install {unpacked.distribution}' with its index of CPU torch into the README"
    return convicted(line, remedy=remedy)


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(METADATA_VALID, "read METADATA strictly", _valid),
    Check(
        "description-renders",
        "render the description",
        _renders,
        needs=(METADATA_VALID,),
        seconds=1,
        commands=(TWINE, RENDER),
        tools=("packaging", "readme-renderer", "twine"),
    ),
    Check("install-instructions", "look for install instructions", _instructions, severity="warning"),
)
