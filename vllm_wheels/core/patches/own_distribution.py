# SPDX-License-Identifier: Apache-2.0
"""Answers lookups of the distribution ``vllm`` from within the package, which is installed under another name.

vllm-wheels puts this file into the wheel as ``vllm/_own_distribution.py``, with ``NAME`` filled in, and renames the
lookups that it understands; this is for all others, however they are spelled. What it answers is what upstream's own
CPU build would: its version ends in ``+cpu``. Nobody outside of the package is answered, for whom there is no ``vllm``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError, distribution
from os import PathLike
from typing import Any

NAME = ""
PACKAGE = UPSTREAM = "vllm"
METADATA = "METADATA"
VERSION = re.compile(r"^Version: .+$", re.MULTILINE)
MACHINERY = ("importlib", "importlib_metadata")


class CpuBuild(Distribution):
    """The installed distribution as upstream's CPU build would call it."""

    def __init__(self, installed: Distribution) -> None:
        self._installed = installed

    def read_text(self, filename: str) -> str | None:
        """Text of a file of the metadata."""
        text = self._installed.read_text(filename)
        return VERSION.sub(r"\g<0>+cpu", text, count=1) if text and filename == METADATA else text

    def locate_file(self, path: str | PathLike[str]) -> Any:
        """Where a file of the distribution is."""
        return self._installed.locate_file(path)


class Finder:
    """Stands on ``sys.meta_path``, where ``importlib.metadata`` asks; finds no modules."""

    @staticmethod
    def find_spec(*_asked: object) -> None:
        """No module."""

    @staticmethod
    def find_distributions(context: DistributionFinder.Context) -> Iterable[Distribution]:
        """This distribution, if this package asks for ``vllm``."""
        if (context.name or "").lower() != UPSTREAM or not _asked_within():
            return ()
        try:
            return (CpuBuild(distribution(NAME)),)
        except PackageNotFoundError:
            return ()


def _asked_within() -> bool:
    frame = sys._getframe(1)  # noqa: SLF001 - who asks is what it is about
    while frame.f_back and _is_machinery(frame.f_globals):
        frame = frame.f_back
    # A module that is run as a program is called __main__, and still knows its package.
    asking = frame.f_globals.get("__package__") or frame.f_globals.get("__name__", "")
    return f"{asking}.".startswith(f"{PACKAGE}.")


def _is_machinery(names: dict[str, object]) -> bool:
    return names is globals() or str(names.get("__name__")).partition(".")[0] in MACHINERY


if NAME:
    sys.meta_path.insert(0, Finder)
