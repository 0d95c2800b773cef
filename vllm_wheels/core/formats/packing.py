"""Packs wheels (PEP 427); the same files give the same bytes, on however many cores."""

from __future__ import annotations

import csv
import hashlib
import io
import stat
import zipfile
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path

from packaging.tags import parse_tag

from vllm_wheels.core.formats.wheel_name import dist_info_name, wheel_name
from vllm_wheels.core.formats.wheelfile import (
    EXECUTABLE,
    PLAIN,
    SIGNATURES,
    Member,
    is_executable,
    the_dist_info,
    unsound,
)
from vllm_wheels.core.host.machine import cores

LEVEL = 7
"""Of deflate: fixed, because it decides the bytes; 9 takes three times as long for 0.2 % less machine code."""

AT_ONCE = 64
"""Members that are held in memory, deflated, until they are written."""

EPOCH = 1577836800
"""Time stamp of every member of a wheel, 2020-01-01, so that the same inputs give the same bytes."""

FIRST_TIME = datetime(1980, 1, 1, tzinfo=UTC)
"""The earliest time that a zip file can express."""


def pack_wheel(
    folder: Path, out: Path, *, distribution: str, version: str, tag: str, epoch: int, level: int = LEVEL
) -> Path:
    """Packs an unpacked wheel, and leaves the folder as it is; raises what ``pack_members`` does."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    members = {
        name: Member(read=file.read_bytes, executable=is_executable(file.stat().st_mode))
        for name, file in files.items()
    }
    return pack_members(members, out, distribution=distribution, version=version, tag=tag, epoch=epoch, level=level)


def holding(content: bytes) -> Member:
    """A plain file with a content."""
    return Member(read=lambda: content)


def pack_members(
    members: Mapping[str, Member],
    out: Path,
    *,
    distribution: str,
    version: str,
    tag: str,
    epoch: int,
    level: int = LEVEL,
) -> Path:
    """Packs files by their name in the wheel; WHEEL and RECORD are written new.

    The bytes depend on the arguments and the members' contents and executable bits alone: members by name with
    dist-info last and RECORD the very last, one time, two modes, one compression level.

    The epoch is SOURCE_DATE_EPOCH; ``level`` is 0 for a wheel that is packed anew before anybody stores it.

    Returns:
        Path of the wheel.

    Raises:
        WheelError: dist-info is missing or not named after distribution and version.
    """
    path = out / wheel_name(distribution, version, tag)
    dist_info = dist_info_name(distribution, version)
    found = the_dist_info(path, members)
    if found != dist_info:
        raise unsound(path, f"its dist-info folder is {found}, not {dist_info}")
    made = {f"{dist_info}/{name}" for name in ("WHEEL", "RECORD", *SIGNATURES)}
    names = sorted(members.keys() - made, key=lambda name: (name.startswith(f"{dist_info}/"), name))
    out.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w") as archive, ThreadPoolExecutor(cores()) as pool:
        add = partial(_add, archive, epoch=epoch)
        rows: list[tuple[str, str, str]] = []
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            deflated = pool.map(lambda name: _Deflated.of(members[name], level), some)
            rows += [
                add(name, each, executable=members[name].executable) for name, each in zip(some, deflated, strict=True)
            ]
        rows.append(add(f"{dist_info}/WHEEL", _Deflated.of(holding(_wheel_text(tag)), level)))
        record = f"{dist_info}/RECORD"
        add(record, _Deflated.of(holding(_record_text([*rows, (record, "", "")])), level))
    return unfinished.replace(path)


@dataclass(frozen=True, kw_only=True)
class _Deflated:
    """A member's content, deflated, and what a wheel says of it."""

    content: bytes
    size: int
    crc: int
    sha256: bytes

    @classmethod
    def of(cls, member: Member, level: int) -> _Deflated:
        content = member.read()
        if member.deflated and level == LEVEL:
            deflated = member.deflated()
        else:
            deflated = zlib.compress(content, level, -zlib.MAX_WBITS)
        sha256 = hashlib.sha256(content).digest()
        return cls(content=deflated, size=len(content), crc=zlib.crc32(content), sha256=sha256)


def _add(
    archive: zipfile.ZipFile, name: str, deflated: _Deflated, *, epoch: int, executable: bool = False
) -> tuple[str, str, str]:
    moment = max(datetime.fromtimestamp(epoch, UTC), FIRST_TIME)
    info = zipfile.ZipInfo(name, moment.timetuple()[:6])
    info.external_attr = (stat.S_IFREG | (EXECUTABLE if executable else PLAIN)) << 16
    info.create_system = 3  # Unix: the mode counts
    info.compress_type = zipfile.ZIP_DEFLATED
    info.CRC, info.file_size, info.compress_size = deflated.crc, deflated.size, len(deflated.content)
    # What zipfile's own mkdir does to add an entry: it deflates by itself alone, one member after the other.
    assert archive.fp is not None  # noqa: S101 - it is open
    info.header_offset = archive.fp.tell()
    archive.fp.write(info.FileHeader(zip64=False))
    archive.fp.write(deflated.content)
    archive.filelist.append(info)
    archive.NameToInfo[name] = info
    archive.start_dir = archive.fp.tell()
    archive._didModify = True  # type: ignore[attr-defined]  # noqa: SLF001
    digest = urlsafe_b64encode(deflated.sha256).rstrip(b"=").decode("ascii")
    return name, f"sha256={digest}", str(deflated.size)


def _wheel_text(tag: str) -> bytes:
    generator = f"vllm-wheels {installed_version('vllm-wheels')}"
    lines = ["Wheel-Version: 1.0", f"Generator: {generator}", "Root-Is-Purelib: false"]
    lines += [f"Tag: {one}" for one in sorted(str(one) for one in parse_tag(tag))]
    return "".join(f"{line}\n" for line in lines).encode()


def _record_text(rows: Sequence[tuple[str, str, str]]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()
