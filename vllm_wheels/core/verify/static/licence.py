"""The licence is upstream's, and its text is in the wheel."""

import re

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed
from vllm_wheels.core.verify.unpacked import UnpackedWheel

UPSTREAM = "Apache-2.0"
"""SPDX identifier of vLLM's licence, in every release."""

UPSTREAM_NAMES = re.compile(
    r"\s*apache(?:[- ]software)?(?:[- ]licen[cs]e)?[-, ]*(?:version |v\.? ?)?(?:2(?:\.0)?)?(?:[- ]licen[cs]e)?\s*",
    re.IGNORECASE,
)
LICENCE_FILE = re.compile(r"(?:LICEN[CS]E|COPYING)[^/]*", re.IGNORECASE)
UPSTREAM_TEXT = "Apache License"
BESIDE = re.compile(r"(?:MIT|ISC|Zlib|PSF-2\.0|BSD-[\w-]+|LGPL-[\w.-]+)\b")
"""Licences of what a wheel may hold beside upstream's code, such as libnuma (SPDX identifiers)."""

OPERATORS = frozenset({"AND", "OR", "WITH", "(", ")"})
CLASSIFIER = "License :: "


def _licence(unpacked: UnpackedWheel) -> Judgement:
    metadata = unpacked.file.metadata
    expression, text = metadata["License-Expression"], metadata["License"]
    classifiers = [line for line in metadata.get_all("Classifier", []) if line.startswith(CLASSIFIER)]
    stated = [f"License-Expression: {expression}"] if expression else []
    stated += [f"License: {text.splitlines()[0]}"] if text else []
    stated += classifiers
    # None, unless a person read another licence.
    known = expression == unpacked.settings.wheel.licence or (expression and _as_upstream(str(expression)))
    wrong = [
        *([f"License-Expression: {expression}"] if expression and not known else []),
        *([f"License: {text.splitlines()[0]}"] if text and not UPSTREAM_NAMES.fullmatch(text.splitlines()[0]) else []),
        *(line for line in classifiers if line.count("::") > 1 and "Apache" not in line),
    ]
    remedy = f"state upstream's licence: License-Expression: {UPSTREAM}"
    if wrong:
        line = f"says {'; '.join(wrong)}, upstream's is {UPSTREAM}"
        return convicted(line, evidence="\n".join(stated), remedy=remedy)
    if expression and classifiers:
        line = f"{classifiers[0]} stands beside License-Expression, which the index refuses (PEP 639)"
        return convicted(line, evidence="\n".join(stated), remedy="drop the classifier")
    if not stated:
        return convicted("METADATA states no licence", remedy=remedy)
    return passed(f"{stated[0]}, as upstream")


def _as_upstream(expression: str) -> bool:
    """Whether it asks for upstream's licence, and for no other that asks for more."""
    try:
        words = str(canonicalize_license_expression(expression)).replace("(", " ( ").replace(")", " ) ").split()
    except InvalidLicenseExpression:
        return False
    named = [word for word in words if word not in OPERATORS]
    return UPSTREAM in named and all(word == UPSTREAM or BESIDE.match(word) for word in named)


def _files(unpacked: UnpackedWheel) -> Judgement:
    dist_info = unpacked.file.dist_info
    remedy = "ship upstream's LICENSE below dist-info/licenses and name it in License-File (PEP 639)"
    named = [str(name) for name in unpacked.file.metadata.get_all("License-File", [])]
    # Before PEP 639 they lay in dist-info itself.
    places = {name: [f"{dist_info}/licenses/{name}", f"{dist_info}/{name}"] for name in named or _unnamed(unpacked)}
    if not places:
        return convicted("no licence file is in the wheel", remedy=remedy)
    lost = [name for name, paths in places.items() if not any(path in unpacked.file.members for path in paths)]
    if lost:
        return convicted(f"the licence file {', '.join(lost)} is not in the wheel", remedy=remedy)
    texts = [unpacked.text(path) for paths in places.values() for path in paths]
    if not unpacked.settings.wheel.licence and not any(UPSTREAM_TEXT in text for text in texts):
        return convicted(f"no licence file holds the {UPSTREAM_TEXT}", remedy=remedy)
    return passed(f"{', '.join(places)} is in the wheel")


def _unnamed(unpacked: UnpackedWheel) -> list[str]:
    """Licence files that METADATA does not name, as wheels before PEP 639 hold them."""
    folder = f"{unpacked.file.dist_info}/"
    below = [name.removeprefix(folder) for name in unpacked.file.members if name.startswith(folder)]
    return [name.removeprefix("licenses/") for name in below if LICENCE_FILE.fullmatch(name.removeprefix("licenses/"))]


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("licence", "compare the licence with upstream's", _licence, inputs=("licence",)),
    Check("licence-files", "look for the licence's text", _files, inputs=("licence",)),
)
