"""Which Pythons a wheel claims to run on: those on which an installer takes it."""

from __future__ import annotations

from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.formats.wheelfile import WheelFile

KNOWN = tuple(f"3.{minor}" for minor in range(8, 15))
"""Pythons that vLLM was ever released for; without this end an open ``Requires-Python`` would claim them all."""


def claimed(file: WheelFile) -> tuple[str, ...]:
    """Pythons that the file name's tags and Requires-Python both allow, lowest first."""
    name, allowed = WheelName.parse(file.path.name), str(file.metadata["Requires-Python"] or "")
    return tuple(python for python in KNOWN if name.installs_on(python) and supports(allowed, python))
