"""Most memory that verification takes for wheels made to take it, each with the command and in a process of its own.

    python -m benchmarks.worst_inputs [NAME...]

Prints for each the exit status, seconds of a processor, and the peak of the command's own process and of the largest
that it starts. The limit is 1 GB, whatever the input; the exit status is 1 where one is above it.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import KIBIBYTES_PER_MEGABYTE
from vllm_wheels.core.host.limits import MIB
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library

LIMIT_MEGABYTES = 1000.0
INFO = "vllm_cpu-0.32.0.dist-info"
ENTRY = "from vllm_wheels.cli import main; main()"
NOISE = random.Random(1).randbytes(5 * MIB)  # noqa: S311 - bytes that do not deflate, so that others may
CALL = "import torch\ntorch.ops._C.silu_and_mul(1)\n"


def lying(content: bytes) -> bytes:
    """The zip file whose largest member says that it is a thousandth as large."""
    with zipfile.ZipFile(_file(content)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    size = struct.pack("<L", largest.file_size)
    return content.replace(size, struct.pack("<L", largest.file_size // 1000))


def _file(content: bytes) -> Path:
    path = Path(os.environ.get("TMPDIR", "/var/tmp"), f"worst-{os.getpid()}.zip")  # noqa: S108 - of this process alone
    path.write_bytes(content)
    return path


def padded(section: str, flags: str, size: int) -> bytes:
    """An extension with a large section of zeros."""
    place = f'asm(".section {section},\\"{flags}\\",@progbits\\n.zero {size}\\n.text");'
    return library("baseline", "-DPATH=0", f"-include{_source(place)}")


def _source(text: str) -> Path:
    path = Path(os.environ.get("TMPDIR", "/var/tmp"), f"worst-{os.getpid()}.h")  # noqa: S108 - as above
    path.write_text(text, "utf-8")
    return path


WORST: Mapping[str, Callable[[], Recipe]] = {
    "member of 900 MB that says 0.9 MB": lambda: Recipe(files={"vllm/x": bytes(900_000_000)}, zipped=lying),
    "member of 380 MiB": lambda: Recipe(files={"vllm/x": bytes(380 * MIB), "vllm/y": NOISE}),
    "380 MiB of constants": lambda: Recipe(code=padded(".rodata", "a", 370 * MIB), files={"vllm/y": NOISE}),
    "380 MiB of code": lambda: Recipe(code=padded(".text.x", "ax", 370 * MIB), files={"vllm/y": NOISE}),
    "METADATA of 4 MiB": lambda: Recipe(description="# x\n" + "[a](b) " * (MIB // 2)),
    "description of brackets": lambda: Recipe(description="[" * 3 * MIB),
    "description of quotes": lambda: Recipe(description="> " * MIB),
    "40,000 members": lambda: Recipe(files={f"vllm/{number}.py": "" for number in range(40_000)}),
    "RECORD of 4 MiB": lambda: Recipe(record=lambda text: text + "x,,\n" * 900_000),
    "SBOM of 4 MiB": lambda: Recipe(files={f"{INFO}/sboms/vllm-wheels.cdx.json": "[" * 2 * MIB + "]" * 2 * MIB}),
    "Python of 4 MiB": lambda: Recipe(files={"vllm/a.py": "x=" + "a+" * (2 * MIB - 100) + "a\n"}),
    "expression of 100,000 brackets": lambda: Recipe(files={"vllm/a.py": "(" * 100_000}),
    "operators in 4 MiB of Python": lambda: Recipe(
        code=library("baseline", '-DSCHEMA="silu_and_mul(Tensor x) -> ()"'),
        files={f"vllm/{number}.py": CALL + "x=" + "a+" * (MIB // 2) + "a\n" for number in range(6)},
    ),
    "1 GB of Python": lambda: Recipe(
        files={f"vllm/{number}.py": bytes(3 * MIB) for number in range(300)} | {"y": NOISE}
    ),
    "entry points of 4 MiB": lambda: Recipe(
        files={f"{INFO}/entry_points.txt": "[console_scripts]\n" + "".join(f"v{n} = a:b\n" for n in range(300_000))}
    ),
}


def measured(recipe: Recipe, folder: Path) -> tuple[int, float, float]:
    """Exit status, seconds of a processor, and megabytes of the largest process of verifying a wheel."""
    path = recipe.write(folder)
    argv = [sys.executable, "-c", ENTRY, "verify", str(path), "--no-install"]
    environment = {**os.environ, "VLLM_WHEELS_INDEX__URL": "http://127.0.0.1:9/simple/"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / KIBIBYTES_PER_MEGABYTE


def main() -> int:
    """Measures all, or those that are named."""
    wanted = sys.argv[1:] or list(WORST)
    most = 0.0
    print("| wheel | status | s | MB |\n|---|---|---|---|")
    for name in wanted:
        with TemporaryDirectory(prefix="worst-") as folder:
            status, seconds, megabytes = measured(WORST[name](), Path(folder))
        most = max(most, megabytes)
        print(f"| {name} | {status} | {seconds:.0f} | {megabytes:.0f} |", flush=True)
    return int(most > LIMIT_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())
