"""The wheel carries an SBOM (PEP 770) that describes this wheel."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.utils import canonicalize_name

from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.unpacked import UnpackedWheel

FORMAT = "CycloneDX"


def _documents(unpacked: UnpackedWheel) -> Iterator[tuple[str, Any]]:
    """Name and content of each SBOM; None for one that is not JSON."""
    folder = f"{unpacked.file.dist_info}/sboms/"
    for name in sorted(unpacked.file.members):
        if name.startswith(folder):
            try:
                yield name, json.loads(unpacked.text(name))
            except (ValueError, RecursionError):
                yield name, None


def components(unpacked: UnpackedWheel) -> list[tuple[str, str]]:
    """Normalised names and versions of all components that the SBOMs list."""
    return [
        (str(canonicalize_name(str(entry["name"]))), str(entry.get("version", "")))
        for _, document in _documents(unpacked)
        for entry in _listed(document)
    ]


def _listed(document: Any) -> list[Mapping[str, Any]]:
    found = document.get("components") if isinstance(document, dict) else None
    return [each for each in found if isinstance(each, dict) and "name" in each] if isinstance(found, list) else []


def _sbom(unpacked: UnpackedWheel) -> Judgement:
    documents = dict(_documents(unpacked))
    if not documents:
        remedy = "ship a CycloneDX file below dist-info/sboms (PEP 770)"
        return convicted("it carries no SBOM", remedy=remedy, severity="error" if unpacked.ours else "warning")
    faults = [f"{name}: {fault}" for name, document in documents.items() if (fault := _fault(unpacked, document))]
    if faults:
        remedy = "write the SBOM anew for this wheel"
        return convicted(faults[0], evidence="\n".join(faults), remedy=remedy, severity="error")
    return passed(f"{len(documents)} SBOM, {len(components(unpacked))} components")


def _fault(unpacked: UnpackedWheel, document: Any) -> str | None:
    if not isinstance(document, dict):
        return "it cannot be read as a JSON object"
    if document.get("bomFormat") != FORMAT:
        return f"it is not of the format {FORMAT}"
    if not re.fullmatch(r"1\.\d+", str(document.get("specVersion"))):
        return f"it names no version of {FORMAT}"
    return _fault_of_subject(unpacked, _subject(document))


def _fault_of_subject(unpacked: UnpackedWheel, subject: Mapping[str, Any]) -> str | None:
    name, version = str(subject.get("name", "")), str(subject.get("version", ""))
    if not name:
        return "it does not say what it speaks of"
    if name and canonicalize_name(name) == unpacked.distribution and version not in {"", unpacked.version}:
        return f"it speaks of {name} {version}, the wheel is {unpacked.version}"
    if name and canonicalize_name(name) != unpacked.distribution:
        return f"it speaks of {name}, the wheel is {unpacked.distribution}"
    return None


def _subject(document: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = document.get("metadata")
    found = metadata.get("component") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


CHECKS: tuple[Check[UnpackedWheel], ...] = (Check("sbom", "read the SBOM", _sbom, severity="warning"),)
