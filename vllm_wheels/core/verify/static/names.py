"""File name, dist-info folder, METADATA and WHEEL agree on name, version and tags."""

import re
from collections.abc import Iterable

from packaging.tags import Tag
from packaging.utils import canonicalize_name, canonicalize_version

from vllm_wheels.core.formats.wheel_name import named_by
from vllm_wheels.core.formats.wheelfile import tags_in
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.unpacked import UnpackedWheel

FORMAT = "1.0"
"""The only version of the binary distribution format."""


def _names(unpacked: UnpackedWheel) -> Judgement:
    stated = {
        "file name": (unpacked.distribution, unpacked.version),
        "dist-info": named_by(unpacked.file.dist_info),
        "METADATA": (unpacked.file.name, unpacked.file.version),
    }
    if len({_normal(*each) for each in stated.values()}) == 1:
        return passed(f"{unpacked.distribution} {unpacked.version} everywhere")
    told = ", ".join(f"{place} says {' '.join(each) or 'nothing'}" for place, each in stated.items())
    return convicted(f"names or versions disagree: {told}", remedy="name all three alike and pack the wheel anew")


def _normal(name: str, version: str) -> tuple[str, str]:
    return canonicalize_name(name), canonicalize_version(version)


def _tags(unpacked: UnpackedWheel) -> Judgement:
    file = unpacked.file
    remedy = "let auditwheel write both, or repack with 'wheel tags'"
    if malformed := [str(text) for text in file.wheel.get_all("Tag", []) if tags_in(str(text)) is None]:
        return convicted(f"WHEEL inside says Tag: {malformed[0]}, which is no tag", remedy=remedy)
    if file.tags != file.wheel_tags:
        line = f"the file name says {_shown(file.tags)}, WHEEL inside says {_shown(file.wheel_tags) or 'nothing'}"
        return convicted(line, remedy=remedy)
    if unpacked.binaries and str(file.wheel["Root-Is-Purelib"]).lower() == "true":
        line = "WHEEL says Root-Is-Purelib: true, but there is machine code inside"
        return convicted(line, evidence="\n".join(each.name for each in unpacked.binaries), remedy=remedy)
    return passed(f"file name and WHEEL say {_shown(file.tags)}")


def _wheel_version(unpacked: UnpackedWheel) -> Judgement:
    stated = str(unpacked.file.wheel["Wheel-Version"] or "")
    remedy = f"write Wheel-Version: {FORMAT}"
    if not re.fullmatch(r"\d+\.\d+", stated):
        return convicted(f"WHEEL says Wheel-Version: {stated or 'nothing'}, which is no version", remedy=remedy)
    if stated != FORMAT:
        return convicted(f"WHEEL says Wheel-Version: {stated}, and the format has only {FORMAT}", remedy=remedy)
    if str(unpacked.file.wheel["Root-Is-Purelib"]).lower() not in {"true", "false"}:
        line = f"WHEEL says Root-Is-Purelib: {unpacked.file.wheel['Root-Is-Purelib']}, which is neither true nor false"
        return convicted(line, remedy="write Root-Is-Purelib: false")
    return passed(f"WHEEL is of the format {stated}")


def _shown(tags: Iterable[Tag]) -> str:
    return " ".join(sorted(str(tag) for tag in tags))


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("names-agree", "compare the names and versions inside", _names),
    Check("tags-agree", "compare the tags of file name and WHEEL", _tags),
    Check("wheel-version", "read which format WHEEL is of", _wheel_version),
)
