"""How long counting the instructions of a wheel takes, against a plain decode of the same code by iced-x86.

    python benchmarks/scan.py FILE

FILE is a wheel or an ELF file; without one, the largest shared library of this machine is taken. Prints the ratio of
both times measured in this run, seconds and peak memory for 30 MB of code, and the same as one line of JSON.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from elftools.elf.elffile import ELFFile
from iced_x86 import Decoder

from vllm_wheels.core.formats.instructions import scan
from vllm_wheels.core.formats.wheelfile import elf_files, unpack_wheel

LIBRARIES = Path("/usr/lib")
MEGABYTES = 30

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that the work took, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def decode(files: list[Path]) -> int:
    """The least that any scanner must do: every instruction of every .text, decoded once and forgotten."""
    count = 0
    for file in files:
        with file.open("rb") as stream:
            section = ELFFile(stream).get_section_by_name(".text")
            count += sum(1 for _ in Decoder(64, section.data())) if section else 0
    return count


def measure(path: Path) -> dict[str, object]:
    """Scans the file, then decodes it plainly."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if path.suffix == ".whl":
            unpack_wheel(path, folder)
            files = elf_files(folder)
        else:
            files = [path]
        seconds, found = timed(lambda: scan(path))
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        plain, _ = timed(lambda: decode(files))
    return {
        "benchmark": "scan",
        "file": path.name,
        "code_megabytes": round(found.size / 1e6, 1),
        "seconds": round(seconds, 2),
        "seconds_for_30_megabytes": round(seconds * MEGABYTES * 1e6 / found.size, 2),
        "plain_decode_seconds": round(plain, 2),
        "ratio": round(seconds / plain, 2),
        "peak_megabytes": round(megabytes),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }


def main() -> None:
    """Measures the file that the command line names."""
    given = [Path(word) for word in sys.argv[1:]]
    path = given[0] if given else max(LIBRARIES.rglob("lib*.so*"), key=lambda file: file.stat().st_size)
    figures = measure(path)
    print(
        f"{figures['code_megabytes']} MB of code in {figures['seconds']} s, {figures['peak_megabytes']} MB of memory;"
    )
    print(f"{figures['ratio']} times a plain decode, {figures['seconds_for_30_megabytes']} s for 30 MB (at most 15)")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
