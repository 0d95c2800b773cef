"""Unpacks archives that nobody has vouched for, and hashes trees.

Every member, also of a zip file, is shown to Python's own ``data`` filter (PEP 706), where there is one, but not to it
alone: on Pythons before mid-2025 chains of links pass it (CVE-2025-4330 and CVE-2025-4517), and it has no limits. Here
no member is ever written through a link: links are made last, and only ones whose text cannot lead out, wherever other
links lead.
"""

import errno
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path, PurePosixPath
from typing import IO

from vllm_wheels.core.errors import SourceError, UnsafeArchiveError
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.system_errors import of_system

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IGNORED = frozenset({".git", "__pycache__"})
"""Names that are no part of a source tree: they differ between equal trees."""

OUTLINE = "sizes "
"""Begins a fingerprint of names and sizes."""

TOP = "packed"
"""The one folder in an archive that ``pack`` writes."""

DAMAGED = (
    EOFError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zstd.ZstdError,
    NotImplementedError,
)
"""What the standard library raises for a file that is truncated, broken or no archive."""


DATA_FILTER: Callable[[tarfile.TarInfo, str], object] | None = getattr(tarfile, "data_filter", None)
FILTER_ERRORS: tuple[type[Exception], ...] = (getattr(tarfile, "FilterError", ValueError), ValueError)
"""Python has them from 3.11.4 on; with Debian 12's 3.11.2 the checks of this module are the only ones."""

Entry = tuple[tarfile.TarInfo, Callable[[], IO[bytes] | None]]
"""A member as tar describes it, and what opens its content."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive into a new or empty folder, without the single folder that everything in it lies in.

    Files become readable by all, and executable where their owner's bit is set; no other bit of their mode is kept.

    The archive is named ``*.tar.gz``, ``*.tgz``, ``*.tar.xz``, ``*.tar.zst`` or ``*.zip``.

    Raises:
        UnsafeArchiveError: it is truncated, damaged or no archive, or a member would be written outside, is a link that
            leads out or a device, or there is more in it than the limits allow.
        DiskSpaceError: there is no room for it.
    """
    entries = _zip_entries if archive.name.endswith(".zip") else _tar_entries
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _require_few(archive)
        _Unpacking(archive=archive.name, folder=folder).place(entries(archive))
    except DAMAGED as error:
        why = f"it is truncated, damaged or no archive ({str(error) or type(error).__name__})"
        raise _useless(archive.name, why) from error
    except OSError as error:
        raise _explained(error, archive.name, folder) from error


def pack(folder: Path, archive: Path, *, leave_out: Collection[str] = ()) -> None:
    """Packs a folder into a ``*.tar.zst``, the same bytes for the same content; files directly in it can be left out.

    What ``unpack`` would refuse, it refuses too.
    """

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = PurePosixPath(info.name).relative_to(TOP)
        if str(path) in leave_out:
            return None
        if info.issym() and not _stays_inside(path, info.linkname):
            raise _unsafe(archive.name, info.name, f"it is a link that leads out, to {info.linkname}")
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    with zstd.open(archive, "wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder, arcname=TOP, filter=plain)


def tree_hash(folder: Path, *, ignored: Collection[str] = IGNORED) -> str:
    """SHA-256 of a tree's content: relative paths, executable bits, bytes and the texts of links.

    Files and folders of an ignored name and empty folders do not count.
    """
    digest = hashlib.sha256()
    for path in _walk(folder, ignored):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            kind, content = "link", hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
        elif stat.S_ISREG(mode):
            kind, content = "program" if mode & stat.S_IXUSR else "file", sha256_of(path)
        else:
            what = f"{path} is neither file, folder nor link"
            raise SourceError(what, why="a source tree has only those", remedy=f"remove {path}")
        digest.update(os.fsencode(path.relative_to(folder)) + f"\0{kind}\0{content}\n".encode())
    return digest.hexdigest()


def fingerprint(folder: Path, *, ignored: Collection[str]) -> str:
    """What tells whether a tree is still as it was: its content, or names and sizes where reading all takes seconds."""
    sizes = _sizes(os.fspath(folder), ignored)
    if len(sizes) <= limits.READ_AGAIN_FILES:
        return f"content {tree_hash(folder, ignored=ignored)}"
    start = len(os.fspath(folder))
    outline = "".join(f"{name[start:]}\0{size}\n" for name, size in sorted(sizes))
    return f"{OUTLINE}{hashlib.sha256(os.fsencode(outline)).hexdigest()}"


def is_outline(fingerprint: str) -> bool:
    """Whether a fingerprint is of names and sizes only."""
    return fingerprint.startswith(OUTLINE)


def _sizes(folder: str, ignored: Collection[str]) -> list[tuple[str, int]]:
    # With the entries that the system lists, which cost a quarter of a walk by paths: an environment has 20,000.
    found, folders = [], [folder]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name in ignored:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    found.append((entry.path, entry.stat(follow_symlinks=False).st_size))
    return found


def refuse_links_out(folder: Path) -> None:
    """Refuses a tree with a symbolic link that leads, or might lead, out of it."""
    for path in _walk(folder):
        name = PurePosixPath(path.relative_to(folder))
        if path.is_symlink() and not _stays_inside(name, os.fspath(path.readlink())):
            what = f"{path} leads out of the source tree"
            remedy = "remove the link, or make it a file"
            raise SourceError(what, why=f"it is a link to {path.readlink()}", remedy=remedy)


def _explained(error: OSError, archive: str, folder: Path) -> Exception:
    if error.errno == errno.ENAMETOOLONG:
        return _unsafe(archive, Path(error.filename).name, "its path is too long")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return of_system(error, path=folder)
    return error


def _walk(folder: Path, ignored: Collection[str] = IGNORED) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in ignored and name not in linked)
        for name in sorted([*files, *linked]):
            if name not in ignored:
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
    placed: dict[PurePosixPath, bytes] = field(default_factory=dict)
    links: dict[PurePosixPath, str] = field(default_factory=dict)
    top: str | None = None
    room: int = field(default_factory=lambda: limits.UNPACKED_BYTES)

    def place(self, entries: Iterator[Entry]) -> None:
        for info, content in entries:
            name = self._below_top(info)
            self._require_harmless(info, name)
            self._place(info, name, content)
        if self.top is None:
            raise _useless(self.archive, "it is empty")
        for name, target in self.links.items():
            self._link(name, target)

    def _below_top(self, info: tarfile.TarInfo) -> PurePosixPath:
        top, name = self._split(info.name, info.name)
        self.top = self.top or top
        if top != self.top:
            raise _unsafe(self.archive, info.name, f"it lies outside the folder {self.top}, where all else is")
        if not name.parts and not info.isdir():
            raise _unsafe(self.archive, info.name, "it is where the folder must be that everything lies in")
        return name

    def _split(self, path: str, member: str) -> tuple[str, PurePosixPath]:
        parts = PurePosixPath(path).parts
        if path.startswith("/"):
            raise _unsafe(self.archive, member, f"the path {path} is absolute")
        if ".." in parts:
            raise _unsafe(self.archive, member, f"the path {path} has a '..' in it")
        if "\0" in path or not parts:
            raise _unsafe(self.archive, member, f"{path!r} is not a path")
        if len(parts) > limits.PATH_DEPTH:
            raise _unsafe(self.archive, member, f"it lies in more than {limits.PATH_DEPTH} folders")
        return parts[0], PurePosixPath(*parts[1:])

    def _require_harmless(self, info: tarfile.TarInfo, name: PurePosixPath) -> None:
        if info.issym() and "\0" in info.linkname:
            raise _unsafe(self.archive, info.name, f"it is a link to {info.linkname!r}, which is not a path")
        if info.issym() and not _stays_inside(name, info.linkname):
            raise _unsafe(self.archive, info.name, f"it is a link that leads out, to {info.linkname}")
        if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            raise _unsafe(self.archive, info.name, "it is neither file, folder nor link")
        if DATA_FILTER is None:
            return
        try:
            DATA_FILTER(info.replace(name=str(name), deep=False), str(self.folder))
        except FILTER_ERRORS as error:
            raise _unsafe(self.archive, info.name, str(error)) from error

    def _place(self, info: tarfile.TarInfo, name: PurePosixPath, content: Callable[[], IO[bytes] | None]) -> None:
        path = self.folder / name
        if info.isdir() and self.placed.setdefault(name, tarfile.DIRTYPE) == tarfile.DIRTYPE:
            self._make_folder(info.name, path)
            return
        if name in self.placed or path.exists():
            raise _unsafe(self.archive, info.name, "the archive has it twice")
        if info.issym():
            self.placed[name], self.links[name] = tarfile.SYMTYPE, info.linkname
            return
        size, executable = info.size, bool(info.mode & stat.S_IXUSR)
        if info.islnk():
            original = self._original(info)
            size, executable = original.stat().st_size, os.access(original, os.X_OK)
            content = partial(FileIO, original)
        self.placed[name] = tarfile.REGTYPE
        self._make_folder(info.name, path.parent)
        self._write(info.name, path, content, size)
        path.chmod(0o755 if executable else 0o644)

    def _original(self, info: tarfile.TarInfo) -> Path:
        _, target = self._split(info.linkname, info.name)
        if self.placed.get(target) != tarfile.REGTYPE:
            why = f"it is a hard link to {info.linkname}, which is no file before it"
            raise _unsafe(self.archive, info.name, why)
        return self.folder / target

    def _write(self, member: str, path: Path, content: Callable[[], IO[bytes] | None], size: int) -> None:
        if size > self.room:
            why = f"the archive unpacks to more than {limits.UNPACKED_BYTES} bytes"
            raise _unsafe(self.archive, member, why)
        with content() or BytesIO() as stream, path.open("xb") as output:
            shutil.copyfileobj(stream, output, limits.CHUNK_BYTES)
            written = output.tell()
        if written != size:
            raise _unsafe(self.archive, member, f"it has {written} bytes and not the {size} it claims")
        self.room -= written

    def _link(self, name: PurePosixPath, target: str) -> None:
        path = self.folder / name
        self._make_folder(str(name), path.parent)
        try:
            path.symlink_to(target)
        except FileExistsError as error:
            raise _unsafe(self.archive, str(name), "the archive has it twice") from error

    def _make_folder(self, member: str, folder: Path) -> None:
        name = PurePosixPath(folder.relative_to(self.folder))
        if any(self.placed.get(parent) == tarfile.SYMTYPE for parent in (name, *name.parents)):
            raise _unsafe(self.archive, member, "its path leads through a link")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise _unsafe(self.archive, member, "its path leads through a file") from error


def _useless(archive: str, why: str) -> UnsafeArchiveError:
    return UnsafeArchiveError(f"{archive} is not unpacked", why=why, remedy="obtain it again")


def _unsafe(archive: str, member: str, why: str) -> UnsafeArchiveError:
    what = f"{archive} is not unpacked because of its member {member!r}"
    return UnsafeArchiveError(what, why=why, remedy="do not use this archive; obtain it from its publisher")


def _require_few(archive: Path) -> None:
    """Refuses an archive of too many members before anything is written; reading their headers takes about a second."""
    for count, name in enumerate(_names(archive), start=1):
        if count > limits.MEMBERS:
            raise _unsafe(archive.name, name, f"the archive has more than {limits.MEMBERS} members")


def _names(archive: Path) -> Iterator[str]:
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as container:
            yield from container.namelist()
        return
    with _opened_tar(archive) as tar:
        for info in tar:
            yield info.name
            # It keeps what it has read, for those who come back to it.
            tar.members.clear()  # type: ignore[attr-defined]  # typeshed leaves it out


@contextmanager
def _opened_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    # tarfile knows Zstandard from Python 3.14 on.
    zipped = zstd.open(archive) if archive.suffix == ".zst" else None
    with zipped or nullcontext(), tarfile.open(archive, fileobj=zipped) as tar:
        yield tar


def _tar_entries(archive: Path) -> Iterator[Entry]:
    with _opened_tar(archive) as tar:
        for info in tar:
            yield info, partial(tar.extractfile, info)
        _require_end(tar)


def _require_end(tar: tarfile.TarFile) -> None:
    # tarfile takes a broken header in the middle, or a clean cut between two members, for the end of the archive.
    stream = tar.fileobj
    assert stream is not None  # noqa: S101 - the archive is open
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        message = "its end is missing"
        raise tarfile.ReadError(message)
    while stream.read(limits.CHUNK_BYTES):  # The checksum of a compressed stream is compared at its end.
        pass


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as container:
        for member in container.infolist():
            if member.flag_bits & 1:
                raise _unsafe(archive.name, member.filename, "it is encrypted")
            info = tarfile.TarInfo(member.filename)
            info.size, info.mode, info.type = member.file_size, member.external_attr >> 16, _zip_type(member)
            if info.issym():
                if info.size > os.pathconf("/", "PC_PATH_MAX"):
                    raise _unsafe(archive.name, info.name, "it is a link with a text too long for one")
                info.linkname = os.fsdecode(container.read(member))
            yield info, partial(container.open, member)


def _zip_type(member: zipfile.ZipInfo) -> bytes:
    # The upper half holds a Unix mode; archives made elsewhere leave it empty.
    mode = stat.S_IFMT(member.external_attr >> 16)
    if member.is_dir():
        return tarfile.DIRTYPE
    # Of what is neither file nor link tar's kind does not matter: the filter takes none of them.
    return {0: tarfile.REGTYPE, stat.S_IFREG: tarfile.REGTYPE, stat.S_IFLNK: tarfile.SYMTYPE}.get(mode, tarfile.CHRTYPE)
