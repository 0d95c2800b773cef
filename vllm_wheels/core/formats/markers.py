"""Evaluates environment markers (PEP 508) for CPython on x86-64 Linux, where the wheels are built and installed."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import Requirement

X86_64_LINUX = {
    "extra": "",
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}


def applies(requirement: Requirement, pythons: Iterable[str]) -> bool:
    """Whether a requirement applies on at least one of the Pythons; one whose marker makes no sense does."""
    marker = requirement.marker
    try:
        return marker is None or any(marker.evaluate({**X86_64_LINUX, **_versions(python)}) for python in pythons)
    except (UndefinedComparison, UndefinedEnvironmentName):
        return True


def _versions(python: str) -> dict[str, str]:
    full = f"{python}.0"
    return {"python_version": python, "python_full_version": full, "implementation_version": full}
