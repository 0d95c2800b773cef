"""Reads texts that may be versions (PEP 440)."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version


def version_in(text: str | None) -> Version | None:
    """The version that a text is; None where it is none."""
    try:
        return Version(text or "")
    except InvalidVersion:
        return None
