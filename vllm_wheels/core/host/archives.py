"""Unpacks archives that nobody has vouched for, and hashes trees.

PEP 706's ``data`` filter is not relied on: on Pythons before mid-2025 chains of links pass it (CVE-2025-4330 and
CVE-2025-4517), and zip files have no such filter. Here no member is ever written through a link: links are made last,
and only ones whose text cannot lead out, wherever other links lead.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import IO

from vllm_wheels.core.errors import DiskSpaceError, SourceError, UnsafeArchiveError

LIMIT_BYTES = 4 * 2**30
"""Most that an archive may unpack to; vLLM 0.33.0 unpacks to 0.2 GiB."""

LIMIT_MEMBERS = 200_000
CHUNK_BYTES = 2**20

IGNORED = frozenset({".git", "__pycache__"})
"""Names that are no part of a source tree: they differ between equal trees."""

DAMAGED = (
    EOFError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    NotImplementedError,
)
"""What the standard library raises for a file that is truncated, broken or no archive."""


class Kind(Enum):
    """What a member of an archive is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "symbolic link"
    HARD_LINK = "hard link"
    OTHER = "device or special file"


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    kind: Kind
    executable: bool = False
    size: int = 0
    target: str = ""
    open: Callable[[], IO[bytes] | None] = lambda: None


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive into a new or empty folder, without the single folder that everything in it lies in.

    Files become readable by all, and executable where their owner's bit is set; no other bit of their mode is kept.

    Args:
        archive: named ``*.tar.gz``, ``*.tgz``, ``*.tar.xz`` or ``*.zip``.
        folder: where to.

    Raises:
        UnsafeArchiveError: it is truncated, damaged or no archive, or a member would be written outside, is a link that
            leads out or a device, or there is more in it than ``LIMIT_BYTES``.
        DiskSpaceError: there is no room for it.
    """
    members = _zip_members if archive.name.endswith(".zip") else _tar_members
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _Unpacking(archive=archive.name, folder=folder).place(members(archive))
    except DAMAGED as error:
        what = f"{archive.name} is not unpacked"
        why = f"it is truncated, damaged or no archive ({str(error) or type(error).__name__})"
        raise UnsafeArchiveError(what, why=why, remedy="obtain it again") from error
    except OSError as error:
        raise _explained(error, archive.name, folder) from error


def tree_hash(folder: Path) -> str:
    """SHA-256 of a tree's content: relative paths, executable bits, bytes and the texts of links.

    Folders named in ``IGNORED`` and empty folders do not count.

    Raises:
        SourceError: the tree holds a device or another special file.
    """
    digest = hashlib.sha256()
    for path in _walk(folder):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            kind, content = "link", hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
        elif stat.S_ISREG(mode):
            kind, content = "program" if mode & stat.S_IXUSR else "file", file_hash(path)
        else:
            what = f"{path} is neither file, folder nor link"
            raise SourceError(what, why="a source tree has only those", remedy=f"remove {path}")
        digest.update(os.fsencode(path.relative_to(folder)) + f"\0{kind}\0{content}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_links_out(folder: Path) -> None:
    """Refuses a tree with a symbolic link that leads, or might lead, out of it.

    Raises:
        SourceError: there is such a link.
    """
    for path in _walk(folder):
        name = PurePosixPath(path.relative_to(folder))
        if path.is_symlink() and not _stays_inside(name, os.fspath(path.readlink())):
            what = f"{path} leads out of the source tree"
            raise SourceError(
                what, why=f"it is a link to {path.readlink()}", remedy="remove the link, or make it a file"
            )


def _explained(error: OSError, archive: str, folder: Path) -> Exception:
    if error.errno == errno.ENAMETOOLONG:
        return _unsafe(archive, Path(error.filename).name, "its path is too long")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        what = f"there is no room to unpack {archive}"
        return DiskSpaceError(what, why=f"the disk of {folder} is full", remedy="make room, or move state_folder")
    return error


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in IGNORED and name not in linked)
        for name in sorted([*files, *linked]):
            if name not in IGNORED:
                yield Path(parent, name)


def _stays_inside(name: PurePosixPath, target: str) -> bool:
    # After its leading ".." a target may only go down. Then, by induction, no chain of such links leads out: a link
    # starts in a real folder, so ".." means what it says, and each further link met on the way stays inside itself.
    parts = PurePosixPath(target).parts
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return bool(target) and not target.startswith("/") and ".." not in parts[up:] and up < len(name.parts)


@dataclass(kw_only=True)
class _Unpacking:
    """One archive on its way into a folder: what is placed already, and how many bytes may follow."""

    archive: str
    folder: Path
    placed: dict[PurePosixPath, Kind] = field(default_factory=dict)
    links: dict[PurePosixPath, str] = field(default_factory=dict)
    top: str | None = None
    room: int = field(default_factory=lambda: LIMIT_BYTES)

    def place(self, members: Iterator[_Member]) -> None:
        for count, member in enumerate(members, start=1):
            if count > LIMIT_MEMBERS:
                raise _unsafe(self.archive, member.name, f"the archive has more than {LIMIT_MEMBERS} members")
            self._place(member, self._below_top(member))
        if self.top is None:
            what = f"{self.archive} is not unpacked"
            raise UnsafeArchiveError(what, why="it is empty", remedy="obtain it again")
        for name, target in self.links.items():
            self._link(name, target)

    def _below_top(self, member: _Member) -> PurePosixPath:
        top, name = self._split(member.name, member.name)
        self.top = self.top or top
        if top != self.top:
            raise _unsafe(self.archive, member.name, f"it lies outside the folder {self.top}, where all else is")
        if not name.parts and member.kind is not Kind.FOLDER:
            raise _unsafe(self.archive, member.name, "it is where the folder must be that everything lies in")
        return name

    def _split(self, path: str, member: str) -> tuple[str, PurePosixPath]:
        parts = PurePosixPath(path).parts
        if path.startswith("/"):
            raise _unsafe(self.archive, member, f"the path {path} is absolute")
        if ".." in parts:
            raise _unsafe(self.archive, member, f"the path {path} has a '..' in it")
        if "\0" in path or not parts:
            raise _unsafe(self.archive, member, f"{path!r} is not a path")
        return parts[0], PurePosixPath(*parts[1:])

    def _place(self, member: _Member, name: PurePosixPath) -> None:
        if member.kind is Kind.FOLDER and self.placed.setdefault(name, Kind.FOLDER) is Kind.FOLDER:
            self._make_folder(member.name, self.folder / name)
            return
        if name in self.placed or (self.folder / name).exists():
            raise _unsafe(self.archive, member.name, "the archive has it twice")
        self.placed[name] = member.kind
        if member.kind is Kind.LINK:
            if not _stays_inside(name, member.target):
                raise _unsafe(self.archive, member.name, f"it is a link that leads out, to {member.target}")
            self.links[name] = member.target
            return
        if member.kind is Kind.HARD_LINK:
            member = self._linked(member, name)
        self._make_folder(member.name, (self.folder / name).parent)
        self._write(member, self.folder / name)

    def _linked(self, member: _Member, name: PurePosixPath) -> _Member:
        _, target = self._split(member.target, member.name)
        if target == name or self.placed.get(target) not in {Kind.FILE, Kind.HARD_LINK}:
            why = f"it is a hard link to {member.target}, which is no file before it"
            raise _unsafe(self.archive, member.name, why)
        path = self.folder / target
        status = path.stat()
        executable = bool(status.st_mode & stat.S_IXUSR)
        return replace(member, kind=Kind.FILE, size=status.st_size, executable=executable, open=lambda: path.open("rb"))

    def _write(self, member: _Member, path: Path) -> None:
        if member.size > self.room:
            raise _unsafe(self.archive, member.name, f"the archive unpacks to more than {LIMIT_BYTES} bytes")
        stream = member.open() if member.kind is Kind.FILE else None
        if stream is None:
            raise _unsafe(self.archive, member.name, f"it is a {member.kind.value}")
        with stream, path.open("xb") as output:
            shutil.copyfileobj(stream, output, CHUNK_BYTES)
            written = output.tell()
        if written != member.size:
            raise _unsafe(self.archive, member.name, f"it has {written} bytes and not the {member.size} it claims")
        self.room -= written
        path.chmod(0o755 if member.executable else 0o644)

    def _link(self, name: PurePosixPath, target: str) -> None:
        path = self.folder / name
        self._make_folder(str(name), path.parent)
        try:
            path.symlink_to(target)
        except FileExistsError as error:
            raise _unsafe(self.archive, str(name), "the archive has it twice") from error

    def _make_folder(self, member: str, folder: Path) -> None:
        if any(self.placed.get(PurePosixPath(parent)) is Kind.LINK for parent in _chain(folder, self.folder)):
            raise _unsafe(self.archive, member, "its path leads through a link")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise _unsafe(self.archive, member, "its path leads through a file") from error


def _chain(folder: Path, top: Path) -> Iterator[PurePosixPath]:
    name = PurePosixPath(folder.relative_to(top))
    yield from (name, *name.parents)


def _unsafe(archive: str, member: str, why: str) -> UnsafeArchiveError:
    what = f"{archive} is not unpacked because of its member {member!r}"
    return UnsafeArchiveError(what, why=why, remedy="do not use this archive; obtain it from its publisher")


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as tar:
        for info in tar:
            yield _Member(
                name=info.name,
                kind=_tar_kind(info),
                executable=bool(info.mode & stat.S_IXUSR),
                size=info.size,
                target=info.linkname,
                open=lambda info=info: tar.extractfile(info),  # type: ignore[misc] # the loop's own value, on purpose
            )
        _require_end(tar)


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.isdir():
        return Kind.FOLDER
    if info.issym():
        return Kind.LINK
    if info.islnk():
        return Kind.HARD_LINK
    return Kind.FILE if info.isreg() else Kind.OTHER


def _require_end(tar: tarfile.TarFile) -> None:
    # tarfile takes a broken header in the middle, or a clean cut between two members, for the end of the archive.
    stream = tar.fileobj
    assert stream is not None  # noqa: S101 - the archive is open
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        message = "its end is missing"
        raise tarfile.ReadError(message)
    while stream.read(CHUNK_BYTES):  # The checksum of a compressed stream is compared at its end.
        pass


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as container:
        for info in container.infolist():
            if info.flag_bits & 1:
                raise _unsafe(archive.name, info.filename, "it is encrypted")
            kind = _zip_kind(info)
            target = ""
            if kind is Kind.LINK:
                if info.file_size > os.pathconf("/", "PC_PATH_MAX"):
                    raise _unsafe(archive.name, info.filename, "it is a link with a text too long for one")
                target = os.fsdecode(container.read(info))
            yield _Member(
                name=info.filename,
                kind=kind,
                executable=bool(info.external_attr >> 16 & stat.S_IXUSR),
                size=info.file_size,
                target=target,
                open=lambda info=info: container.open(info),  # type: ignore[misc] # the loop's own value, on purpose
            )


def _zip_kind(info: zipfile.ZipInfo) -> Kind:
    # The upper half holds a Unix mode; archives made elsewhere leave it empty.
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir():
        return Kind.FOLDER
    if mode == stat.S_IFLNK:
        return Kind.LINK
    return Kind.FILE if mode in {0, stat.S_IFREG} else Kind.OTHER
