"""Which Pythons a wheel claims to run on: those on which an installer takes it."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag

from vllm_wheels.core.formats.wheelfile import WheelFile

KNOWN = tuple(f"3.{minor}" for minor in range(8, 15))
"""Pythons that vLLM was ever released for; without this end an open ``Requires-Python`` would claim them all."""

LAST_MICRO = 99


def claimed(file: WheelFile) -> tuple[str, ...]:
    """Pythons that the file name's tags and Requires-Python both allow, lowest first."""
    try:
        allowed = SpecifierSet(str(file.metadata["Requires-Python"] or ""))
    except InvalidSpecifier:
        # Another check convicts it; installers ignore what they cannot read.
        allowed = SpecifierSet()
    return tuple(python for python in KNOWN if _tagged(python, file.tags) and _within(python, allowed))


def _within(python: str, allowed: SpecifierSet) -> bool:
    # A bound may name a micro version, such as >=3.10.2: a Python counts if its first or last release is inside.
    return any(allowed.contains(f"{python}.{micro}") for micro in (0, LAST_MICRO))


def _tagged(python: str, tags: Iterable[Tag]) -> bool:
    minor = int(python.partition(".")[2])
    for tag in tags:
        if tag.interpreter in {"py3", f"py3{minor}", f"cp3{minor}"}:
            return True
        if tag.abi == "abi3" and tag.interpreter.startswith("cp3") and int(tag.interpreter[3:] or 0) <= minor:
            return True
    return False
