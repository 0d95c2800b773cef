"""Reads dynamic section, section table and properties of ELF files: libraries, search paths, sizes, CPU level."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_DT_FLAGS
from elftools.elf.segments import NoteSegment

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheelfile import GRAFTED, elf_files

DAMAGED = (ELFError, ConstructError, ValueError, struct.error, OverflowError, AttributeError, TypeError, AssertionError)
"""elftools meets damaged fields with whatever exception the damage happens to cause."""

LOADER_HOOKS = frozenset({"DT_AUDIT", "DT_DEPAUDIT", "DT_FILTER", "DT_AUXILIARY"})
"""Entries by which one file has others loaded in its place or before it (gABI; ``man ld.so``, auditing)."""

PROPERTIES, LEVEL_NEEDED = "NT_GNU_PROPERTY_TYPE_0", "GNU_PROPERTY_X86_ISA_1_NEEDED"
"""As elftools calls them."""

LEVELS = {8: "x86-64-v4", 4: "x86-64-v3", 2: "x86-64-v2"}
"""Bits of the property, highest first (x86-64 psABI)."""

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
        soname: the name under which others ask for it; empty where it has none.
        dangers: what it asks the loader for that no code compiled today needs, a clause each.
        level: that the loader asks of a CPU, such as ``x86-64-v3``; empty where the file notes none.
    """

    name: str
    path: Path
    needed: tuple[str, ...]
    search_paths: tuple[str, ...]
    sections: Mapping[str, int]
    soname: str = ""
    dangers: tuple[str, ...] = ()
    level: str = ""

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


def loaded_data(path: Path) -> Iterator[bytes]:
    """Contents of the sections that are loaded into memory and hold no code; of a file without sections the whole."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        if not elf.num_sections():
            yield path.read_bytes()
        for section in elf.iter_sections():
            flags = section["sh_flags"]
            if flags & SH_FLAGS.SHF_ALLOC and not flags & SH_FLAGS.SHF_EXECINSTR and section["sh_type"] != "SHT_NOBITS":
                yield section.data()


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
                soname=next((tag.soname for tag in tags if hasattr(tag, "soname")), ""),
                dangers=tuple(_dangers(elf, tags)),
                level=_level(elf),
            )
    except DAMAGED as error:
        what = f"{name} is not a sound ELF file"
        raise CannotVerifyError(what, why=str(error) or type(error).__name__, remedy="build the wheel anew") from error


def _dangers(elf: ELFFile, tags: Sequence[Any]) -> Iterator[str]:
    stacks = [segment["p_flags"] for segment in elf.iter_segments("PT_GNU_STACK")]
    if any(flags & P_FLAGS.PF_X for flags in stacks) or not stacks:
        yield "asks for an executable stack"
    loaded = [segment["p_flags"] for segment in elf.iter_segments("PT_LOAD")]
    if any(flags & P_FLAGS.PF_W and flags & P_FLAGS.PF_X for flags in loaded):
        yield "has memory that is writable and executable"
    if any(tag.entry.d_tag == "DT_TEXTREL" or _flagged(tag, ENUM_DT_FLAGS["DF_TEXTREL"]) for tag in tags):
        yield "has its code changed while it is loaded (text relocations)"
    for tag in tags:
        if tag.entry.d_tag in LOADER_HOOKS:
            yield f"has libraries loaded before others ({tag.entry.d_tag})"


def _flagged(tag: Any, bit: int) -> bool:
    return bool(tag.entry.d_tag == "DT_FLAGS" and tag.entry.d_val & bit)


def _level(elf: ELFFile) -> str:
    found = 0
    for segment in elf.iter_segments():
        if isinstance(segment, NoteSegment):
            for note in segment.iter_notes():
                if note["n_type"] == PROPERTIES:
                    found |= sum(each["pr_data"] for each in note["n_desc"] if each["pr_type"] == LEVEL_NEEDED)
    return next((name for bit, name in LEVELS.items() if found & bit), "")


def _split(tag: object, kind: str) -> list[str]:
    return str(getattr(tag, kind)).split(":") if hasattr(tag, kind) else []
