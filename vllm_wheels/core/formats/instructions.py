"""Disassembles a wheel, counts its instructions by the CPU feature that they need, and compares them with a variant.

Symbols are not needed, so stripped files can be read. Decoding is one linear sweep through each executable section
that starts anew at every function which ``.eh_frame_hdr`` names: data between functions, which decodes to nonsense,
cannot put the sweep out of step.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import islice, pairwise
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.elffile import ELFFile
from iced_x86 import Code, Code_, CpuidFeature, Decoder, Instruction

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.elf import DAMAGED
from vllm_wheels.core.formats.wheelfile import GRAFTED, elf_files, unpack_wheel
from vllm_wheels.core.variants import Variant

BITS = 64
PIECE = 1_000_000
"""Instructions that are held in memory at a time."""

MACHINE = "EM_X86_64"
FUNCTION_TABLE = ".eh_frame_hdr"
TABLE_HEADER = struct.Struct("<4BiI")
TABLE_ENCODINGS = (1, 0x1B, 0x03, 0x3B)
"""Version and encodings of the one form that linkers write (Linux Standard Base, "Exception Frames"): a table of pairs
of 32-bit offsets from the section's own address, sorted."""

TABLE_ROW = struct.Struct("<ii")

CODE = attrgetter("code")
NAMES = {number: name for name, number in vars(CpuidFeature).items() if name.isupper()}
UNDECODABLE = Code.INVALID


@dataclass(frozen=True, kw_only=True)
class MachineCode:
    """The instructions of one ELF file.

    Attributes:
        name: path of the file below the wheel's or folder's root.
        size: bytes in executable sections.
        undecodable: places that hold no instruction, as data does.
        features: instructions by the CPU feature they need (iced-x86's names); one may need two features.
        first: address of the first instruction of each feature.
        sha256: hash of the sequence of opcodes without operands; the same code linked to other addresses has the same.
    """

    name: str
    size: int
    instructions: int
    undecodable: int
    features: Mapping[str, int]
    first: Mapping[str, int]
    sha256: str

    @property
    def grafted(self) -> bool:
        """Whether it is an external library that auditwheel grafted into the wheel."""
        return GRAFTED in self.name


@dataclass(frozen=True)
class Scan:
    """The machine code of a wheel, file by file."""

    files: tuple[MachineCode, ...]

    @property
    def own(self) -> tuple[MachineCode, ...]:
        """Files that were compiled for the wheel, without grafted libraries."""
        return tuple(file for file in self.files if not file.grafted)

    @property
    def features(self) -> dict[str, int]:
        """Instructions of the wheel's own code by CPU feature."""
        total: Counter[str] = Counter()
        for file in self.own:
            total.update(file.features)
        return dict(total)

    @property
    def size(self) -> int:
        """Bytes of machine code, grafted libraries among it."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """Hash of the wheel's own code, whatever its files are called; two wheels with one hash hold the same code."""
        return hashlib.sha256("".join(sorted(file.sha256 for file in self.own)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A promised instruction that is missing, or a forbidden one that is there.

    Attributes:
        feature: CPU feature, or pattern of features, that is missing or must not be there.
        file: where a forbidden instruction is; None where a promised one is nowhere.
        count: how many forbidden instructions the file holds.
        address: of the first of them.
        grafted: whether the file is an external library, which may dispatch on the CPU at run time.
    """

    feature: str
    file: str | None = None
    count: int = 0
    address: int | None = None
    grafted: bool = False

    def __str__(self) -> str:
        if self.file is None:
            return f"no instruction of {self.feature}, which the variant promises"
        return f"{self.file} holds {self.count} instructions of {self.feature}, the first at {self.address:#x}"


def judge(found: Scan, variant: Variant) -> tuple[Fault, ...]:
    """Promised instructions that are missing, then forbidden ones that are there; none where the code fits the variant.

    A promised feature is never a forbidden one, whatever patterns the variant forbids.
    """
    features = found.features
    missing = tuple(Fault(feature=name) for name in variant.promises if not features.get(name))
    return missing + tuple(fault for file in found.files for fault in _forbidden(file, variant))


def _forbidden(file: MachineCode, variant: Variant) -> Iterator[Fault]:
    for name, count in file.features.items():
        if name not in variant.promises and any(fnmatchcase(name, pattern) for pattern in variant.forbids):
            yield Fault(feature=name, file=file.name, count=count, address=file.first[name], grafted=file.grafted)


def identical(scans: Mapping[str, Scan]) -> tuple[tuple[str, ...], ...]:
    """Groups of names whose wheels hold the same machine code, each of two or more."""
    groups: dict[str, list[str]] = {}
    for name, found in scans.items():
        if found.own:
            groups.setdefault(found.sha256, []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def scan(path: Path) -> Scan:
    """Counts the instructions of a wheel, of all ELF files below a folder, or of one ELF file.

    Reading 30 MB of code takes 1.5 s and 0.2 GB (benchmarks/scan.py), so it is done in this process.

    Raises:
        WheelError: the file is no sound wheel, or an ELF file in it is damaged or not for x86-64.
    """
    if path.is_dir():
        return Scan(tuple(_read(file, str(file.relative_to(path))) for file in elf_files(path)))
    if path.suffix != ".whl":
        return Scan((_read(path, path.name),))
    with TemporaryDirectory(prefix="vllm-wheels-scan-") as folder:
        unpack_wheel(path, Path(folder))
        return scan(Path(folder))


def _read(path: Path, name: str) -> MachineCode:
    try:
        with path.open("rb") as stream:
            return _counted(stream, name)
    except DAMAGED as error:
        raise _unreadable(name, f"it is damaged ({error})") from error


def _unreadable(name: str, why: str) -> WheelError:
    what = f"the machine code of {name} cannot be read"
    return WheelError(what, why=why, remedy="build the wheel anew, for x86-64")


def _counted(stream: BinaryIO, name: str) -> MachineCode:
    elf = ELFFile(stream)
    if elf["e_machine"] != MACHINE:
        raise _unreadable(name, f"it is for {elf['e_machine']}, not for x86-64")
    starts = _function_starts(elf)
    sweep = _Sweep()
    room = stream.seek(0, os.SEEK_END)
    for address, code in _executable(elf):
        room -= len(code)
        if room < 0:
            raise _unreadable(name, "its sections overlap: they have more code than the file has bytes")
        sweep.through(code, address, starts)
    return sweep.result(name)


def _executable(elf: ELFFile) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of the executable sections, or of the executable segments of a file without sections."""
    if elf.num_sections():
        for section in elf.iter_sections():
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and section["sh_type"] == "SHT_PROGBITS":
                yield section["sh_addr"], section.data()
        return
    for segment in elf.iter_segments("PT_LOAD"):
        if segment["p_flags"] & P_FLAGS.PF_X:
            yield segment["p_vaddr"], segment.data()


def _function_starts(elf: ELFFile) -> Sequence[int]:
    section = elf.get_section_by_name(FUNCTION_TABLE)
    if section is None or section["sh_size"] < TABLE_HEADER.size:
        return ()
    table = section.data()
    *encodings, _, count = TABLE_HEADER.unpack_from(table)
    rows = table[TABLE_HEADER.size : TABLE_HEADER.size + count * TABLE_ROW.size]
    if tuple(encodings) != TABLE_ENCODINGS or len(rows) != count * TABLE_ROW.size:
        return ()
    return sorted({section["sh_addr"] + offset for offset, _ in TABLE_ROW.iter_unpack(rows)})


class _Sweep:
    """Decodes executable sections and counts their instructions."""

    def __init__(self) -> None:
        self._kinds: Counter[int] = Counter()
        self._first: dict[int, int] = {}
        self._digest = hashlib.sha256()
        self._size = 0

    def through(self, code: bytes, address: int, starts: Sequence[int]) -> None:
        end = address + len(code)
        self._size += len(code)
        bounds = [address, *(start for start in starts if address < start < end), end]
        for start, stop in pairwise(bounds):
            self._range(code[start - address : stop - address], start)

    def _range(self, code: bytes, address: int) -> None:
        before = len(self._kinds)
        # Compact and piece by piece, since a section without function starts is one range of many million instructions.
        codes = map(CODE, Decoder(BITS, code))
        while kinds := array("H", islice(codes, PIECE)):
            self._digest.update(kinds)
            self._kinds.update(kinds)
        if len(self._kinds) > before:
            for instruction in Decoder(BITS, code, ip=address):
                self._first.setdefault(instruction.code, instruction.ip)

    def result(self, name: str) -> MachineCode:
        features: Counter[str] = Counter()
        first: dict[str, int] = {}
        for kind, count in self._kinds.items():
            for feature in features_of(kind):
                features[feature] += count
                first[feature] = min(first.get(feature, self._first[kind]), self._first[kind])
        undecodable = self._kinds[UNDECODABLE]
        return MachineCode(
            name=name,
            size=self._size,
            instructions=self._kinds.total() - undecodable,
            undecodable=undecodable,
            features=dict(sorted(features.items())),
            first=first,
            sha256=self._digest.hexdigest(),
        )


@cache
def features_of(kind: Code_) -> tuple[str, ...]:
    """The CPU features that an instruction of this kind needs; ``kind`` is a number of ``iced_x86.Code``."""
    instruction = Instruction()
    instruction.code = kind
    return tuple(NAMES[number] for number in instruction.cpuid_features())
