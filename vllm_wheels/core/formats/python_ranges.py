"""Tells which Pythons a ``Requires-Python`` allows."""

from __future__ import annotations

from functools import cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet

MICRO_VERSIONS = range(100)


@cache
def supports(requires_python: str | None, python: str) -> bool:
    """Whether any micro version of a Python is allowed: 3.10 is by ``>=3.10.2``, and by ``<3.10.2`` too.

    Nothing excludes nothing; neither does what cannot be read, which installers ignore.
    """
    try:
        allowed = SpecifierSet(requires_python or "")
    except InvalidSpecifier:
        return True
    return any(allowed.contains(f"{python}.{micro}") for micro in MICRO_VERSIONS)
