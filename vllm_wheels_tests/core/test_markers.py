"""A marker is evaluated for CPython on x86-64 Linux, the same for building and for installing."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from vllm_wheels.core.formats.markers import applies


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("sys_platform == 'linux' and platform_machine == 'x86_64'", True),
        ("platform_machine == 'aarch64'", False),
        ("python_version < '3.12'", True),
        ("python_version >= '3.13'", False),
        ("python_full_version < '3.11.0'", False),
        ("implementation_version >= '3.12'", True),
        ("platform_python_implementation == 'PyPy'", False),
        ("extra == 'audio'", False),
        ("os_name ~= 'posix'", True),
    ],
)
def test_requirement_applies_if_one_of_the_pythons_meets_its_marker(marker, expected):
    """A requirement for other machines, or for later Pythons, is left aside; one that makes no sense is not."""
    assert applies(Requirement(f"numpy; {marker}"), ["3.11", "3.12"]) is expected
