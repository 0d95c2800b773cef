"""How much the CPU build of torch and the default one weigh, with everything that each of them brings along.

    python benchmarks/torch_sizes.py [VERSION]

Both are resolved by uv for the running Python: the default build from the configured package index, the CPU build from
a folder of index.find_links or PIP_FIND_LINKS. Nothing is installed and no wheel is downloaded whole: sizes come from
the index's pages, and installed sizes from the table of contents at the end of each wheel. Prints a table, and writes
benchmarks/results/torch_sizes.json.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import requests
from uv import find_uv_bin

from vllm_wheels.core.formats.wheel_name import name_stem, rank, wheels_in
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.arguments import index_arguments
from vllm_wheels.core.index.published import files_of, wheels_of
from vllm_wheels.core.settings import Settings, load

RESULT = Path(__file__).parent / "results" / "torch_sizes.json"
TIMEOUT_SECONDS = 60.0
RESOLVE_SECONDS = 300.0
NO_LINKS = dict.fromkeys(("PIP_FIND_LINKS", "UV_FIND_LINKS"))
TAIL_BYTES = 1 << 20
"""Read at once from the end of a wheel: holds the table of contents of all but the largest."""


@dataclass(frozen=True)
class Weight:
    """One package: bytes to download and bytes once installed."""

    package: str
    version: str
    download: int
    installed: int


class RemoteFile(io.RawIOBase):
    """A file on a web server, read by ranges, so that zipfile fetches only what it looks at."""

    def __init__(self, url: str, size: int) -> None:
        self.url, self.size, self.position = url, size, 0
        self.tail = self._range(max(0, size - TAIL_BYTES), size)

    def _range(self, start: int, end: int) -> bytes:
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        with requests.get(self.url, headers=headers, timeout=TIMEOUT_SECONDS, stream=True) as answer:
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                message = f"{self.url} is not served by ranges"
                raise OSError(message)
            return answer.content

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def tell(self) -> int:
        """As of any file."""
        return self.position

    def read(self, count: int = -1) -> bytes:
        """As of any file."""
        end = self.size if count < 0 else min(self.size, self.position + count)
        start, self.position = self.position, end
        before = self.size - len(self.tail)
        return self.tail[start - before : end - before] if start >= before else self._range(start, end)


def installed(wheel: zipfile.ZipFile) -> int:
    """Bytes of all files in a wheel."""
    return sum(info.file_size for info in wheel.infolist())


def resolved(requirement: str, arguments: list[str]) -> list[tuple[str, str]]:
    """Name and version of everything that an installer takes for the requirement here."""
    with TemporaryDirectory() as temporary:
        asked, lock = Path(temporary) / "asked.in", Path(temporary) / "lock.txt"
        asked.write_text(f"{requirement}\n", "utf-8")
        words = [find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", *arguments]
        finished = Runner().run([*words, str(asked), "-o", str(lock)], env=NO_LINKS, timeout_seconds=RESOLVE_SECONDS)
        if finished.status:
            sys.exit("\n".join(finished.tail))
        lines = lock.read_text("utf-8").splitlines()
    return [(name, version) for name, _, version in (line.partition("==") for line in lines) if version]


def weights(requirement: str, settings: Settings, environ: Mapping[str, str]) -> list[Weight]:
    """What the requirement and all that it requires weigh."""
    arguments = index_arguments(settings, environ)
    folders = [Path(word) for word in arguments if Path(word).is_dir()]
    found = [_weight(name, version, folders, settings) for name, version in resolved(requirement, arguments)]
    return sorted(found, key=lambda each: -each.download)


def _weight(name: str, version: str, folders: list[Path], settings: Settings) -> Weight:
    local = [path for folder in folders for path in wheels_in(folder, f"{name_stem(name, version)}-")]
    if local:
        with zipfile.ZipFile(local[0]) as wheel:
            return Weight(name, version, local[0].stat().st_size, installed(wheel))
    package = min(wheels_of(files_of(settings, name), version), key=lambda each: rank(each.filename))
    size = package.size or 0
    with zipfile.ZipFile(RemoteFile(package.url, size)) as wheel:
        return Weight(name, version, size, installed(wheel))


def table(builds: Mapping[str, list[Weight]]) -> str:
    """The figures as Markdown: one line per package, and the sums."""
    lines = ["| | package | download, MB | installed, MB |", "|---|---|---|---|"]
    for build, found in builds.items():
        lines += [
            f"| | {each.package} {each.version} | {_mega(each.download)} | {_mega(each.installed)} |" for each in found
        ]
        sums = _mega(sum(each.download for each in found)), _mega(sum(each.installed for each in found))
        lines.append(f"| **{build}** | **{len(found)} packages** | **{sums[0]}** | **{sums[1]}** |")
    return "\n".join(lines)


def _mega(count: int) -> str:
    return f"{count / 1e6:.1f}"


def main() -> None:
    """Measures both builds."""
    version = sys.argv[1] if len(sys.argv) > 1 else "2.13.0"
    settings = load()
    without = {name: value for name, value in os.environ.items() if name not in NO_LINKS}
    builds = {
        "CPU build": weights(f"torch=={version}+cpu", settings, os.environ),
        "default build": weights(f"torch=={version}", settings, without),
    }
    data = {name: [asdict(each) for each in found] for name, found in builds.items()}
    measured = {"date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(), "torch": version}
    RESULT.write_text(json.dumps({"benchmark": "torch_sizes", **measured, **data}, indent=1) + "\n", "utf-8")
    print(table(builds))


if __name__ == "__main__":
    main()
