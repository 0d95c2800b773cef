"""Reads the dynamic section and the section table of ELF files: libraries, search paths, sizes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheelfile import GRAFTED, elf_files

DAMAGED = (ELFError, ConstructError, ValueError, struct.error, OverflowError, AttributeError, TypeError, AssertionError)
"""elftools meets damaged fields with whatever exception the damage happens to cause."""

TORCH_LIBRARIES = ("libtorch*.so", "libc10.so", "libgomp.so.1", "libgomp-*.so*")
"""Never grafted: torch brings them and loads them first. A second libgomp would mean a second pool of threads."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """An ELF file of a wheel.

    Attributes:
        name: path below the wheel's root.
        needed: libraries that it asks the loader for (DT_NEEDED).
        search_paths: where it tells the loader to look (DT_RPATH, DT_RUNPATH).
        sections: sizes in bytes by name.
    """

    name: str
    path: Path
    needed: tuple[str, ...]
    search_paths: tuple[str, ...]
    sections: Mapping[str, int]

    @property
    def grafted(self) -> bool:
        """Whether it is an external library that auditwheel grafted into the wheel."""
        return GRAFTED in self.name

    @property
    def extension(self) -> bool:
        """Whether it is named as an extension module."""
        return self.name.endswith(".so") and not self.grafted


def binaries(folder: Path) -> tuple[Binary, ...]:
    """The ELF files below a folder; CannotVerifyError where one of them is damaged."""
    return tuple(_read(path, path.relative_to(folder).as_posix()) for path in elf_files(folder))


def _read(path: Path, name: str) -> Binary:
    try:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            tags = [
                tag
                for segment in elf.iter_segments()
                if isinstance(segment, DynamicSegment)
                for tag in segment.iter_tags()
            ]
            return Binary(
                name=name,
                path=path,
                needed=tuple(tag.needed for tag in tags if hasattr(tag, "needed")),
                search_paths=tuple(
                    folder for tag in tags for kind in ("rpath", "runpath") for folder in _split(tag, kind)
                ),
                sections={section.name: section["sh_size"] for section in elf.iter_sections() if section.name},
            )
    except DAMAGED as error:
        what = f"{name} is not a sound ELF file"
        raise CannotVerifyError(what, why=str(error) or type(error).__name__, remedy="build the wheel anew") from error


def _split(tag: object, kind: str) -> list[str]:
    return str(getattr(tag, kind)).split(":") if hasattr(tag, kind) else []
