"""Names and documents a wheel: puts texts, Python-level patches and the repaired code together; compiles nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from email.parser import HeaderParser
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.packing import holding, pack_members
from vllm_wheels.core.formats.wheel_name import DIST_INFO, dist_info_name, wheel_tag
from vllm_wheels.core.formats.wheelfile import ELF_MAGIC, SIGNATURES, Member, WheelFile, members_of

VERSION_FILE = "vllm/_version.py"

MADE_ANEW = ("METADATA", "WHEEL", "RECORD", *SIGNATURES)
"""Parts of upstream's dist-info that say what is true no longer."""

LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)([.-].*)?", re.IGNORECASE)
"""Files that setuptools takes for licences by default; before 77 it laid them directly into dist-info."""

VERSION_TEXT = re.compile(r"^(__version__ = version = )(['\"])[^'\"]*\2$", re.MULTILINE)
VERSION_TUPLE = re.compile(r"^(__version_tuple__ = version_tuple = )\([^()]*\)$", re.MULTILINE)
"""The two assignments that setuptools-scm 7 and newer write into the version file."""

Describe = Callable[[Mapping[str, Member]], Mapping[str, bytes]]
"""Given the members of the wheel, gives files of dist-info by their path in it."""


def assemble(
    raw: Path,
    code: Path,
    overlay: Path,
    metadata: Path,
    out: Path,
    *,
    distribution: str,
    version: str,
    epoch: int,
    additions: Collection[str] = (),
    describe: Describe | None = None,
) -> Path:
    """Makes a variant's wheel from upstream's raw one and its repaired code; the same arguments give the same bytes.

    Both wheels are ones that ``packing`` packed. Kept are entry points, top-level names and licence files.
    ``vllm.__version__`` becomes the distribution's version.
    ``code`` is the wheel of all compiled code, whose tag the result gets. ``additions`` are files of the overlay that
    the wheel does not have yet.

    Returns:
        Path of the wheel.

    Raises:
        WheelError: a wheel is damaged, an overlay file replaces nothing (or an addition something), or METADATA names
            another distribution or version.
    """
    upstream = WheelFile.read(raw)
    _require_named(metadata, distribution, version)
    dist_info = dist_info_name(distribution, version)
    with members_of(raw, ours=True) as members, members_of(code, ours=True) as repaired:
        _lay_over(members, overlay, additions)
        _set_version(members, version)
        found = {**_renamed(members, upstream.dist_info, dist_info), **repaired}
        found[f"{dist_info}/METADATA"] = Member(read=metadata.read_bytes)
        for name, content in (describe(found) if describe else {}).items():
            found[f"{dist_info}/{name}"] = holding(content)
        tag = wheel_tag(code)
        return pack_members(found, out, distribution=distribution, version=version, tag=tag, epoch=epoch)


def _require_named(metadata: Path, distribution: str, version: str) -> None:
    stated = HeaderParser().parsestr(metadata.read_text("utf-8"))
    name, number = str(stated["Name"]), str(stated["Version"])
    if canonicalize_name(name) != canonicalize_name(distribution) or number != version:
        what = f"METADATA is not that of {distribution} {version}"
        raise WheelError(what, why=f"it says {name} {number}", remedy="make the metadata of the variant anew")


def _lay_over(members: dict[str, Member], overlay: Path, additions: Collection[str]) -> None:
    for source in sorted(path for path in overlay.rglob("*") if path.is_file()):
        name = source.relative_to(overlay).as_posix()
        known = members.get(name)
        if (known is not None) == (name in additions):
            what = f"{name} cannot be laid over the compiled wheel"
            why = "it is said to be new but the wheel has it" if known else "the wheel has no such file to replace"
            raise WheelError(what, why=why, remedy="correct the patch that makes the file for this release")
        if known and known.read().startswith(ELF_MAGIC):
            what = f"{name} cannot be laid over the compiled wheel"
            raise WheelError(what, why="it would replace compiled code", remedy="change compiled code by compiling")
        members[name] = Member(read=source.read_bytes, executable=bool(known and known.executable))


def _set_version(members: dict[str, Member], version: str) -> None:
    text = members[VERSION_FILE].read().decode() if VERSION_FILE in members else ""
    text, texts = VERSION_TEXT.subn(rf"\g<1>'{version}'", text)
    text, tuples = VERSION_TUPLE.subn(rf"\g<1>{version_tuple(version)!r}", text)
    if (texts, tuples) != (1, 1):
        what = f"{VERSION_FILE} of the compiled wheel does not state its version in the known way"
        why = f"found {texts} assignments of __version__ and {tuples} of __version_tuple__ instead of one each"
        raise WheelError(what, why=why, remedy="build the raw wheel with setuptools-scm 7 or newer")
    members[VERSION_FILE] = holding(text.encode())


def version_tuple(text: str) -> tuple[int | str, ...]:
    """The tuple that setuptools-scm writes for a version: numbers of the release, then the other parts as text."""
    version = Version(text)
    pre = "".join(str(part) for part in version.pre) if version.pre else None
    post = None if version.post is None else f"post{version.post}"
    dev = None if version.dev is None else f"dev{version.dev}"
    return (*version.release, *(part for part in (pre, post, dev, version.local) if part))


def _renamed(members: Mapping[str, Member], old: str, new: str) -> dict[str, Member]:
    """The members with dist-info and data folder called after the distribution, and licences where they belong."""
    folders = {old: new, f"{old.removesuffix(DIST_INFO)}.data": f"{new.removesuffix(DIST_INFO)}.data"}
    found = {}
    for name, member in members.items():
        folder, slash, rest = name.partition("/")
        if folder == old and rest in MADE_ANEW:
            continue
        if folder == old and LICENCE.fullmatch(rest):
            rest = f"licenses/{rest}"
        found[f"{folders.get(folder, folder)}{slash}{rest}"] = member
    return found
