"""What a wheel consists of: sizes by part, and the instructions of each compiled file by CPU feature."""

import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.formats.instructions import Scan
from vllm_wheels.core.formats.wheel_name import DIST_INFO
from vllm_wheels.core.formats.wheelfile import GRAFTED
from vllm_wheels.core.texts import shown_line
from vllm_wheels.core.variants import variants

BASELINE_FEATURES = frozenset(
    {
        *("INTEL8086", "INTEL8086_ONLY", "INTEL186", "INTEL286", "INTEL386", "INTEL486", "X64", "SMM", "TSC", "CPUID"),
        *("FPU", "FPU287", "FPU387", "CMOV", "CX8", "MMX", "FXSR", "SSE", "SSE2", "SYSCALL", "CLFSH"),
        *("PAUSE", "MULTIBYTENOP", "CET_IBT"),
    }
)
"""Features of every x86-64 CPU (x86-64 psABI, "x86-64-v1"), with what such a CPU takes for no operation; left out of
pictures, where they would dwarf all others."""

DIST, LIBRARIES, CODE, DATA = "dist-info", "grafted libraries", "Python code", "data"
SHARES = {DIST: "metadata", LIBRARIES: "grafted", CODE: "python", DATA: "data"}
"""Names of the parts in measures; every other part is a compiled file."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a wheel; sizes in bytes.

    Attributes:
        name: of the part; a compiled file is one of its own.
        files: how many.
        packed: what it adds to the wheel.
        unpacked: what it takes once installed.
    """

    name: str
    files: int
    packed: int
    unpacked: int


@dataclass(frozen=True, kw_only=True)
class Composition:
    """What a wheel consists of.

    Attributes:
        size: of the wheel in bytes.
        parts: the largest first.
        instructions: by compiled file and CPU feature (iced-x86's names), the wheel's own files only.
    """

    size: int
    parts: tuple[Part, ...]
    instructions: Mapping[str, Mapping[str, int]]

    @property
    def features(self) -> dict[str, int]:
        """Instructions of all the wheel's own files by CPU feature beyond what every x86-64 CPU has, most first."""
        total: Counter[str] = Counter()
        for counts in self.instructions.values():
            total.update({name: number for name, number in counts.items() if name not in BASELINE_FEATURES})
        return dict(total.most_common())

    @property
    def measures(self) -> dict[str, float]:
        """Numbers to plot: sizes in MB, and counts of instructions of each feature that some variant promises."""
        sizes = dict.fromkeys(("compiled", *SHARES.values()), 0.0)
        for part in self.parts:
            sizes[SHARES.get(part.name, "compiled")] += part.packed / 1e6
        promised = dict.fromkeys(name for each in variants().values() for name in each.promises)
        features = self.features
        return {
            "wheel_megabytes": round(self.size / 1e6, 3),
            "installed_megabytes": round(sum(part.unpacked for part in self.parts) / 1e6, 3),
            **{f"{name}_megabytes": round(size, 3) for name, size in sizes.items()},
            **{f"instructions_{name}": float(features.get(name, 0)) for name in promised},
        }


def composition_of(wheel: Path, scan: Scan) -> Composition:
    """The composition of a wheel, given the scan of its machine code."""
    compiled = {file.name for file in scan.own}
    packed: Counter[str] = Counter()
    unpacked: Counter[str] = Counter()
    files: Counter[str] = Counter()
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            part = shown_line(info.filename) if info.filename in compiled else _part(info.filename)
            packed[part] += info.compress_size
            unpacked[part] += info.file_size
            files[part] += 1
    parts = [
        Part(name=name, files=files[name], packed=size, unpacked=unpacked[name]) for name, size in packed.most_common()
    ]
    return Composition(
        size=wheel.stat().st_size,
        parts=tuple(parts),
        instructions={shown_line(file.name): dict(file.features) for file in scan.own},
    )


def _part(name: str) -> str:
    first = name.partition("/")[0]
    if first.endswith(DIST_INFO):
        return DIST
    if GRAFTED in name:
        return LIBRARIES
    return CODE if name.endswith(".py") else DATA
