"""What the wheel requires beside torch, and of Python, lets an installer take it only where it works."""

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from vllm_wheels.core.index.published import files_of, wheels_of
from vllm_wheels.core.names import distributions
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.static.torch import required_torch
from vllm_wheels.core.verify.unpacked import UnpackedWheel

UPSTREAM = "vllm"
TOO_OLD = ("2.7", "3.0")
"""What a range allows that has no lower end worth the name."""


def _python(unpacked: UnpackedWheel) -> Judgement:
    stated = str(unpacked.file.metadata["Requires-Python"] or "")
    remedy = "state the Pythons that this release supports, such as Requires-Python: >=3.11,<3.15"
    if not stated:
        return convicted(
            "METADATA has no Requires-Python: its tags alone say which Pythons may install it", remedy=remedy
        )
    try:
        limits = SpecifierSet(stated)
    except InvalidSpecifier:
        return convicted(f"Requires-Python: {stated} cannot be read", remedy=remedy)
    if allowed := [python for python in TOO_OLD if python in limits]:
        return convicted(f"Requires-Python: {stated} allows Python {allowed[0]}", remedy=remedy)
    return passed(f"Requires-Python: {stated}")


def _no_other(unpacked: UnpackedWheel) -> Judgement:
    named = {UPSTREAM, *map(canonicalize_name, distributions(unpacked.settings).values())}
    # An extra may require other extras of its own distribution.
    others = named - {unpacked.distribution}
    found = [str(each) for each in unpacked.requirements if canonicalize_name(each.name) in others]
    if found:
        line = f"it requires {found[0]}, which installs the same package vllm over it"
        return convicted(line, evidence="\n".join(found), remedy="drop the requirement")
    return passed("it requires no other distribution of vLLM")


def _torch_published(unpacked: UnpackedWheel) -> Judgement:
    wanted = required_torch(unpacked)
    if not wanted:
        return skipped("it pins no version of torch")
    known = files_of(unpacked.settings, "torch")
    if not known:
        return skipped("the configured index has no torch")
    lost = [str(version) for version in wanted if not wheels_of(known, version.public)]
    if lost:
        line = f"the configured index has no torch {', '.join(lost)}"
        return convicted(line, remedy="require the torch that this release pins and an index offers")
    return passed(f"the configured index has torch {', '.join(str(version.public) for version in wanted)}")


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("requires-python", "read which Pythons may install it", _python),
    Check("no-other-vllm", "look for requirements that overwrite it", _no_other),
    Check(
        "torch-published",
        "ask the index for the torch that it requires",
        _torch_published,
        severity="warning",
        lasting=False,
        seconds=1,
    ),
)
