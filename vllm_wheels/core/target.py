"""What is to be built: a release for a Python, and for a wheel also a variant."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from packaging.version import InvalidVersion, Version

from vllm_wheels.core.errors import PartitionError, UnknownReleaseError, UnsupportedPythonError

PYTHON = re.compile(r"3\.\d{1,2}")
NUMBERS = 3
"""How many numbers upstream's versions have at least."""


@dataclass(frozen=True, kw_only=True, order=True)
class Target:
    """A release, a Python and, where one is meant, a variant.

    Attributes:
        release: version of vLLM as upstream writes it, such as ``0.32.0``; ``v0.32.0`` and ``0.32`` become that.
        python: version of Python without the micro part, such as ``3.11``.
        variant: name from variants.toml; None for what all variants share.
    """

    release: str
    python: str
    variant: str | None = None

    def __post_init__(self) -> None:
        if not PYTHON.fullmatch(self.python):
            what = f"{self.python!r} is not a Python version"
            raise UnsupportedPythonError(what, why="expected the form 3.11", remedy="give --python-version 3.11")
        try:
            object.__setattr__(self, "release", as_upstream_writes(Version(self.release)))
        except InvalidVersion as error:
            what = f"{self.release!r} is not a release of vLLM"
            why = "a release is a PEP 440 version such as 0.32.0"
            raise UnknownReleaseError(what, why=why, remedy="list the releases: vllm-wheels release list") from error

    @classmethod
    def parse(cls, partition: str, variant: str | None = None) -> Target:
        """The target of a partition key such as ``3.11|0.32.0``; PartitionError where it has not exactly two parts."""
        python, separator, release = partition.partition("|")
        if not (python and separator and release) or "|" in release:
            what = f"{partition!r} is not a partition"
            raise PartitionError(what, why="a partition is PYTHON|RELEASE", remedy="write it like '3.11|0.32.0'")
        return cls(release=release, python=python, variant=variant)

    @property
    def partition(self) -> str:
        """Key text of the target's partition."""
        return f"{self.python}|{self.release}"

    def shared(self) -> Target:
        """The same release and Python without the variant."""
        return replace(self, variant=None)


def as_upstream_writes(version: Version) -> str:
    """A version's text as upstream's tags and archives have it: normal form (PEP 440), with three numbers."""
    lacking = NUMBERS - len(version.release)
    numbers = ".".join(str(number) for number in version.release)
    return str(version).replace(numbers, numbers + ".0" * lacking, 1) if lacking > 0 else str(version)
