"""The zip file is laid out as every installer reads it: member after member, two compressions, plain modes."""

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from vllm_wheels.core.texts import shown
from vllm_wheels.core.verify.checks import Check, Judgement, convicted_of, passed
from vllm_wheels.core.verify.unpacked import UnpackedWheel

COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""What every installer reads; uv refuses all others (and so does the public index), though pip reads more."""

IN_EXTRA_FIELD = 0xFFFFFFFF
"""As which a size stands in a header whose extra field has it in 64 bits (4.5.3)."""

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
"""APPNOTE.TXT of the zip format, 4.3.7; names and extra fields follow."""

DESCRIPTOR_FLAG, DESCRIPTOR_BYTES = 0x08, (12, 16, 20, 24)
"""Sizes of a data descriptor: with or without a signature, of 32 or 64 bits (4.3.9)."""

DIRECTORY_END, DIRECTORY_END_BYTES = b"PK\x05\x06", 22
"""Signature and size of the record that ends a zip file (4.3.16)."""

NO_GAP: tuple[int, ...] = (0,)
FORBIDDEN_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWOTH


def _structure(unpacked: UnpackedWheel) -> Judgement:
    with unpacked.path.open("rb") as stream, zipfile.ZipFile(unpacked.path) as archive:
        faults = [*_packed_otherwise(archive), *_out_of_line(stream, archive)]
    if faults:
        return convicted_of(faults, remedy="pack the files anew with a zip library")
    return passed("member follows member from the first byte to the directory at the end")


def _packed_otherwise(archive: zipfile.ZipFile) -> Iterator[str]:
    for info in archive.infolist():
        if info.compress_type not in COMPRESSIONS:
            yield f"{info.filename} is compressed by method {info.compress_type}, which not every installer reads"
        if shown(info.filename) != info.filename:
            yield f"{info.filename} has control characters in its name"
    if archive.comment:
        yield f"a comment of {len(archive.comment)} bytes stands behind its directory"


def _out_of_line(stream: BinaryIO, archive: zipfile.ZipFile) -> Iterator[str]:
    """Bytes that belong to no member, members in one another, and headers that differ from the directory."""
    end, gap = 0, NO_GAP
    for info in sorted(archive.infolist(), key=lambda each: each.header_offset):
        stream.seek(info.header_offset)
        header = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
        name = stream.read(header[9])
        yield from between(info.header_offset - end, gap, info.filename)
        if name.decode("utf-8" if header[2] & 0x800 else "cp437", "replace") != info.orig_filename:
            yield f"{info.filename} is called {name.decode('utf-8', 'replace')} in its own header"
        described = header[2] & DESCRIPTOR_FLAG
        sizes = {info.compress_size, IN_EXTRA_FIELD}
        if not described and (header[3] != info.compress_type or header[7] not in sizes):
            yield f"{info.filename} has another size or compression in its own header"
        end = info.header_offset + LOCAL_HEADER.size + header[9] + header[10] + info.compress_size
        gap = DESCRIPTOR_BYTES if described else NO_GAP
    stream.seek(-DIRECTORY_END_BYTES - len(archive.comment), os.SEEK_END)
    if stream.read(len(DIRECTORY_END)) != DIRECTORY_END:
        yield "bytes behind the directory belong to no member"
    yield from between(archive.start_dir - end, gap, "the directory")


def between(found: int, expected: tuple[int, ...], place: str) -> Iterator[str]:
    """What is wrong with so many bytes before a place, where others are expected; negative for an overlap."""
    if found in expected:
        return
    if found < 0:
        yield f"{place} begins {-found} bytes before what lies before it ends"
    elif expected == NO_GAP:
        yield f"{found} bytes before {place} belong to no member"
    else:
        yield f"{found} bytes before {place} are no data descriptor, which the member before it announces"


def _modes(unpacked: UnpackedWheel) -> Judgement:
    with zipfile.ZipFile(unpacked.path) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    wrong = [f"{name} has mode {stat.filemode(mode)}" for name, mode in modes.items() if mode & FORBIDDEN_BITS]
    if wrong:
        return convicted_of(wrong, remedy="give files the mode 644 or 755 before packing them")
    return passed("no member is set-uid, set-gid, sticky, or writable by everybody")


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("zip-structure", "read the zip file member by member", _structure, tools=()),
    Check("file-modes", "look at the modes of the files", _modes, tools=()),
)
