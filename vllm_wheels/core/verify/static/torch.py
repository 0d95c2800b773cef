"""The wheel requires exactly the torch version that its extensions were compiled against."""

from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.statement import provenance_of
from vllm_wheels.core.verify.static.sbom import components
from vllm_wheels.core.verify.unpacked import KNOWN, UnpackedWheel

TORCH = "torch"


def required_torch(unpacked: UnpackedWheel) -> list[Version]:
    """The versions of torch that it pins."""
    return sorted({version for each in _requirements(unpacked).values() for version in _pins(each)})


def _requirements(unpacked: UnpackedWheel) -> dict[str, Requirement]:
    return {
        str(requirement): requirement
        for python in unpacked.claims or KNOWN
        for requirement in unpacked.required(python)
        if canonicalize_name(requirement.name) == TORCH
    }


def _torch(unpacked: UnpackedWheel) -> Judgement:
    pins = _requirements(unpacked)
    faults = list(_faults(unpacked, list(pins.values())))
    evidence = "\n".join(f"Requires-Dist: {line}" for line in pins)
    if faults:
        remedy = "require exactly torch==X, the version that it is compiled against, without +cpu"
        return convicted("; ".join(faults), evidence=evidence, remedy=remedy)
    beside = "" if _built_with(unpacked) else "; nothing says which torch it was built with"
    named = ", ".join(dict.fromkeys(f"{each.name}{each.specifier}" for each in pins.values()))
    return passed(f"requires {named}{beside}", evidence=evidence)


def _faults(unpacked: UnpackedWheel, found: list[Requirement]) -> Iterator[str]:
    if not found:
        yield "on Linux it does not require torch, without which it cannot be imported"
    pinned = {version for each in found for version in _pins(each)}
    if found and not pinned:
        yield f"{found[0]} does not pin one version: the extensions fit only the torch they were compiled against"
    if len({version.public for version in pinned}) > 1:
        yield f"it requires different versions of torch: {', '.join(sorted(str(each) for each in pinned))}"
    wanted_local = unpacked.settings.wheel.torch_requirement == "local"
    for version in sorted(pinned):
        if version.local and not wanted_local:
            yield f"torch=={version} cannot be met from the package index, which has no local versions (PEP 440)"
    built = _built_with(unpacked)
    if built and pinned and built not in {version.public for version in pinned}:
        yield f"it was built with torch {built} and requires {', '.join(str(each) for each in pinned)}"


def _pins(requirement: Requirement) -> Iterator[Version]:
    for specifier in requirement.specifier:
        exact = specifier.operator in {"==", "==="} and not specifier.version.endswith(".*")
        # What stands behind === need not be a version.
        if exact and (pinned := version_in(specifier.version)):
            yield pinned


def _built_with(unpacked: UnpackedWheel) -> str | None:
    """Public version of the torch that provenance or else the SBOM names."""
    statement = unpacked.read(provenance_of) or {}
    named = [statement.get("torch", {}).get("torch")] if isinstance(statement.get("torch"), dict) else []
    named += [version for name, version in components(unpacked) if name == TORCH]
    return next((version.public for text in named if (version := version_in(str(text)))), None)


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "torch-requirement",
        "compare the torch required with the torch built with",
        _torch,
        inputs=("provenance", "torch_requirement"),
    ),
)
