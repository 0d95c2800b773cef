"""Small wheels for tests, shaped like upstream's compiled one."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from vllm_wheels.core.formats.packing import pack_wheel
from vllm_wheels.core.formats.wheel_name import dist_info_name

EPOCH = 1_700_000_000

VERSION_FILE = """\
__version__ = version = '0.32.0+cpu'
__version_tuple__ = version_tuple = (0, 32, 0, 'cpu')

__commit_id__ = commit_id = None
"""


def metadata(distribution: str, version: str) -> str:
    return f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {version}\nLicense-File: LICENSE\n"


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def make_wheel(
    folder: Path,
    files: Mapping[str, str | bytes],
    *,
    distribution: str = "vllm",
    version: str = "0.32.0+cpu",
    tag: str = "cp311-abi3-linux_x86_64",
) -> Path:
    """Packs the files with a dist-info folder as setuptools writes it; the wheel lies in ``folder``."""
    dist_info = dist_info_name(distribution, version)
    contents = write_files(
        folder / "contents",
        {
            f"{dist_info}/METADATA": metadata(distribution, version),
            f"{dist_info}/entry_points.txt": "[console_scripts]\nvllm = vllm.cli:main\n",
            f"{dist_info}/top_level.txt": "vllm\n",
            f"{dist_info}/licenses/LICENSE": "Apache License\n",
            **files,
        },
    )
    return pack_wheel(contents, folder, distribution=distribution, version=version, tag=tag, epoch=EPOCH)


def rewrite(wheel: Path, *, drop: str = "", add: Mapping[str, str] | None = None) -> Path:
    """Zips a wheel's members anew without those whose name ends in ``drop``, with the added ones."""
    with zipfile.ZipFile(wheel) as archive:
        kept = {
            info.filename: archive.read(info)
            for info in archive.infolist()
            if not drop or not info.filename.endswith(drop)
        }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in [*kept.items(), *(add or {}).items()]:
            archive.writestr(name, content)
    return wheel
