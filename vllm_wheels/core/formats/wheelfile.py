"""Reads and unpacks wheels (PEP 427, PEP 491)."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from functools import partial
from pathlib import Path, PurePosixPath

from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.wheel_name import DIST_INFO, WheelName, named_by
from vllm_wheels.core.host import limits

ELF_MAGIC = b"\x7fELF"
MEMBER_MAGIC = b"PK\x03\x04"
NAME_LENGTH = 26
"""Offset of the lengths of name and extra field in a member's header, which these follow."""

BUNDLED_TCMALLOC = "vllm/libs/libtcmalloc_minimal.so.4"
"""Where vLLM looks for the tcmalloc that it preloads."""

GRAFTED = ".libs/"
"""Ends the folder into which auditwheel puts outside libraries; these may choose their code at run time."""

SIGNATURES = ("RECORD.jws", "RECORD.p7s")

PLAIN, EXECUTABLE = 0o644, 0o755

TAG = re.compile(r"[\w.]{1,64}-[\w.]{1,64}-[\w.]{1,255}")
"""As long as a file name may have it; compressed tags multiply."""

REMEDY = "take another copy of the file, or build it anew"


@dataclass(frozen=True, kw_only=True)
class RecordEntry:
    """A line of RECORD.

    Attributes:
        hash: such as ``sha256=...``; empty for RECORD itself.
        size: in bytes; None where RECORD does not say.
    """

    hash: str
    size: int | None


@dataclass(frozen=True, kw_only=True)
class WheelFile:
    """What a wheel says about itself.

    Attributes:
        build: build tag of the file name, such as ``(1, "")``; empty where there is none.
        wheel: WHEEL; its tags may disagree with the file name's, which is for verification to tell.
        members: sizes in bytes by member, without folders.
    """

    path: Path
    name: str
    version: str
    build: tuple[int, str] | tuple[()]
    tags: frozenset[Tag]
    dist_info: str
    metadata: Message
    wheel: Message
    record: Mapping[str, RecordEntry]
    members: Mapping[str, int]

    @classmethod
    def read(cls, path: Path, *, trusting: bool = True) -> WheelFile:
        """Reads a wheel without unpacking it.

        Without ``trusting``, names that disagree are left for the caller to judge, and so is a RECORD that cannot be
        split, for which ``record`` is empty.

        Raises:
            WheelError: it is no zip file or a truncated one, its file name is no wheel's, it has not exactly one
                dist-info folder with METADATA, WHEEL and RECORD, two members share a name, or file name, dist-info
                and METADATA name different distributions or versions.
        """
        named = WheelName.parse(path.name)
        with _opened(path) as archive:
            members = _members(path, archive)
            dist_info = the_dist_info(path, members)
            texts = {part: _part(path, archive, f"{dist_info}/{part}") for part in ("METADATA", "WHEEL", "RECORD")}
        metadata = _headers(texts["METADATA"])
        if trusting:
            _require_agreement(path, dist_info, metadata, named)
        return cls(
            path=path,
            name=str(metadata["Name"]),
            version=str(metadata["Version"]),
            build=named.build,
            tags=named.tags,
            dist_info=dist_info,
            metadata=metadata,
            wheel=_headers(texts["WHEEL"]),
            record=_record(path, texts["RECORD"], trusting=trusting),
            members=members,
        )

    @property
    def wheel_tags(self) -> frozenset[Tag]:
        """Tags that WHEEL inside the file names."""
        return frozenset(tag for text in self.wheel.get_all("Tag", []) for tag in tags_in(str(text)) or ())


def tags_in(text: str) -> frozenset[Tag] | None:
    """The tags that a ``Tag`` line of WHEEL names; None for one that names none."""
    if not TAG.fullmatch(text):
        return None
    return parse_tag(text)


def unsound(path: Path, why: str) -> WheelError:
    """The error of a wheel that is damaged or put together wrongly."""
    return WheelError(f"{path.name} is not a sound wheel", why=why, remedy=REMEDY)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError) as error:
        why = "it is truncated" if _begins_with(path, MEMBER_MAGIC) else "it is not a zip file"
        raise unsound(path, f"{why} ({error})") from error
    except OSError as error:
        raise unsound(path, f"it cannot be read: {error.strerror}") from error
    try:
        with archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # RuntimeError is what the library says to an encrypted member, NotImplementedError to an unknown compression.
        raise unsound(path, f"a member is damaged or cannot be read ({error})") from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for info in archive.infolist():
        if info.filename in sizes:
            raise unsound(path, f"two of its members are called {info.filename}")
        if not info.is_dir():
            sizes[info.filename] = info.file_size
    return sizes


def the_dist_info(path: Path, members: Mapping[str, object]) -> str:
    """The one dist-info folder among the members of a wheel; WheelError where there is none, or more than one."""
    found = sorted({first for name in members if (first := name.partition("/")[0]).endswith(DIST_INFO) and "/" in name})
    if len(found) != 1:
        raise unsound(path, f"it has {len(found)} dist-info folders: {', '.join(found) or 'none'}")
    return found[0]


def _part(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as stream:
            chunks = iter(partial(stream.read, limits.CHUNK_BYTES), b"")
            return b"".join(chunks)
    except KeyError as error:
        raise unsound(path, f"it has no {name}") from error


def _headers(text: bytes) -> Message:
    return BytesParser(policy=compat32).parsebytes(text)


def _require_agreement(path: Path, dist_info: str, metadata: Message, named: WheelName) -> None:
    stated = {
        "file name": (named.distribution, str(named.version)),
        "dist-info": named_by(dist_info),
        "METADATA": (str(metadata["Name"]), str(metadata["Version"])),
    }
    try:
        known = {(canonicalize_name(one), Version(other)) for one, other in stated.values()}
    except InvalidVersion as error:
        raise unsound(path, str(error)) from error
    if len(known) != 1:
        told = ", ".join(f"{place} says {one} {other}" for place, (one, other) in stated.items())
        raise unsound(path, f"names or versions disagree: {told}")


def _record(path: Path, text: bytes, *, trusting: bool) -> dict[str, RecordEntry]:
    entries = {}
    try:
        for row in csv.reader(io.StringIO(text.decode("utf-8"), newline="")):
            name, digest, size = row
            entries[name] = RecordEntry(hash=digest, size=int(size) if size else None)
    except (ValueError, csv.Error) as error:
        if not trusting:
            return {}
        raise unsound(path, f"RECORD is not of the form path,hash,size ({error})") from error
    return entries


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of a wheel.

    Attributes:
        read: reads its content.
        deflated: reads the same as ``packing`` deflates it, where it need not be deflated again.
    """

    read: Callable[[], bytes]
    executable: bool = False
    deflated: Callable[[], bytes] | None = None


@contextmanager
def members_of(path: Path, *, ours: bool = False) -> Iterator[dict[str, Member]]:
    """The files of a wheel by name, read when they are asked for; raises what ``unpack_wheel`` does.

    ``ours`` says that ``packing`` packed it, at its level.
    """
    with _opened(path) as archive:
        yield {
            info.filename: Member(
                read=partial(archive.read, info),
                executable=is_executable(info.external_attr >> 16),
                deflated=partial(_deflated, path, info)
                if ours and info.compress_type == zipfile.ZIP_DEFLATED
                else None,
            )
            for info in _harmless(path, archive)
        }


def _deflated(path: Path, info: zipfile.ZipInfo) -> bytes:
    """What the file holds for a member, behind the header of it there (PKWARE's APPNOTE, 4.3.7)."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset + NAME_LENGTH)
        name, extra = struct.unpack("<HH", stream.read(4))
        stream.seek(name + extra, os.SEEK_CUR)
        return stream.read(info.compress_size)


def unpack_wheel(path: Path, folder: Path) -> None:
    """Unpacks a wheel into a folder, which is made; nothing is written outside it.

    Members keep the one bit of their mode that means something in a wheel: whether they are executable.

    Raises:
        WheelError: the file is damaged, unpacks to more than ``limits.UNPACKED_BYTES`` bytes, or has a member that is a
            link or would leave the folder.
    """
    with _opened(path) as archive:
        found = _harmless(path, archive)
        folder.mkdir(parents=True, exist_ok=True)
        for parent in {(folder / info.filename).parent for info in found}:
            parent.mkdir(parents=True, exist_ok=True)
        for info in found:
            goal = folder / info.filename
            _write(archive, info, goal)
            goal.chmod(EXECUTABLE if is_executable(info.external_attr >> 16) else PLAIN)


def _harmless(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a wheel, none of which does harm where it is unpacked."""
    members = _members(path, archive)
    if sum(members.values()) > limits.UNPACKED_BYTES:
        raise unsound(path, f"it unpacks to more than {limits.UNPACKED_BYTES} bytes")
    for info in archive.infolist():
        _require_harmless(path, info, members)
    return [info for info in archive.infolist() if not info.is_dir()]


def is_executable(mode: int) -> bool:
    """Whether anybody may execute a file of this mode."""
    return bool(mode & 0o111)


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, goal: Path) -> None:
    # By chunks: a member whose stated size is a lie inflates no further than to that size, and is then refused.
    with archive.open(info) as stream, goal.open("wb") as out:
        shutil.copyfileobj(stream, out, limits.CHUNK_BYTES)


def _require_harmless(path: Path, info: zipfile.ZipInfo, names: Container[str]) -> None:
    pure = PurePosixPath(info.filename)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != info.orig_filename.rstrip("/") or "\\" in info.filename:
        raise unsound(path, f"member {info.orig_filename!r} is not a plain path below the wheel")
    if any(str(parent) in names for parent in pure.parents):
        raise unsound(path, f"member {info.filename} lies below another member that is a file")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsound(path, f"member {info.filename} is a link or a device, not a file")


def elf_files(folder: Path) -> list[Path]:
    """All ELF files below a folder, recognised by their magic number, sorted by name."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _begins_with(path, ELF_MAGIC)]


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic
