"""Libraries inside the wheel may be there: their licence allows it, torch brings none of them, something needs them."""

from pathlib import PurePosixPath

from vllm_wheels.core.formats.elf import Binary
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed
from vllm_wheels.core.verify.static.known import library
from vllm_wheels.core.verify.unpacked import UnpackedWheel

REMEDY = "leave the library outside (auditwheel repair --exclude), or link without it"


def _libraries(unpacked: UnpackedWheel) -> Judgement:
    known = {each.name: (library(_names(each)), each.grafted) for each in unpacked.binaries}
    refused = [f"{name} is inside: {found.refused}" for name, (found, _) in known.items() if found and found.refused]
    if refused:
        return convicted_of(refused, remedy=REMEDY)
    grafted = {name: found for name, (found, grafted) in known.items() if grafted}
    unknown = [name for name, found in grafted.items() if found is None]
    if unknown:
        line = f"nobody here knows the licence of {', '.join(unknown)}"
        return convicted(line, remedy="name the library in known.toml with its licence", severity="warning")
    needed = {name for each in unpacked.binaries for name in each.needed}
    idle = [each.name for each in unpacked.binaries if each.grafted and not needed.intersection(_names(each))]
    if idle:
        return convicted(f"no file of the wheel is linked to {', '.join(idle)}", remedy=REMEDY, severity="warning")
    if named := [f"{PurePosixPath(name).name} ({found.licence})" for name, (found, _) in known.items() if found]:
        return passed(f"holds {', '.join(named)}")
    return passed("no library is inside that is known as one of others")


def _names(binary: Binary) -> tuple[str, str]:
    return PurePosixPath(binary.name).name, binary.soname


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("grafted-libraries", "look at the libraries of others inside", _libraries, tools=("pyelftools",)),
)
