"""Which Pythons a Requires-Python allows is the same answer everywhere."""

from __future__ import annotations

import pytest

from vllm_wheels.core.formats.python_ranges import supports


@pytest.mark.parametrize(
    ("requires_python", "supported"),
    [
        (">=3.11,<3.15", {"3.11", "3.12"}),
        (">=3.10.2", {"3.10", "3.11", "3.12"}),
        ("<3.10.2", {"3.9", "3.10"}),
        (">3.10", {"3.10", "3.11", "3.12"}),
        ("<=3.10", {"3.9", "3.10"}),
        ("==3.11.*", {"3.11"}),
        ("==3.11.4", {"3.11"}),
        ("~=3.11.3", {"3.11"}),
        ("!=3.10.0", {"3.9", "3.10", "3.11", "3.12"}),
        ("!=3.10.*,>=3.9", {"3.9", "3.11", "3.12"}),
        ("", {"3.9", "3.10", "3.11", "3.12"}),
        (None, {"3.9", "3.10", "3.11", "3.12"}),
        ("three", {"3.9", "3.10", "3.11", "3.12"}),
        (">=4", set()),
    ],
)
def test_python_is_supported_if_one_of_its_micro_versions_is(requires_python, supported):
    """With >=3.10.2, Python 3.10 is supported; what nobody can read excludes nothing, as for pip."""
    assert {python for python in ("3.9", "3.10", "3.11", "3.12") if supports(requires_python, python)} == supported
