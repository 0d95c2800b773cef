"""Names and documents a wheel: puts texts, Python-level patches and the repaired code together; compiles nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Mapping
from email.parser import HeaderParser
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.wheel_name import DIST_INFO, dist_info_name, wheel_tag
from vllm_wheels.core.formats.wheelfile import ELF_MAGIC, SIGNATURES, WheelFile, pack_wheel, unpack_wheel

VERSION_FILE = "vllm/_version.py"

MADE_ANEW = ("METADATA", "WHEEL", "RECORD", *SIGNATURES)
"""Parts of upstream's dist-info that say what is true no longer."""

LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)([.-].*)?", re.IGNORECASE)
"""Files that setuptools takes for licences by default; before 77 it laid them directly into dist-info."""

VERSION_TEXT = re.compile(r"^(__version__ = version = )(['\"])[^'\"]*\2$", re.MULTILINE)
VERSION_TUPLE = re.compile(r"^(__version_tuple__ = version_tuple = )\([^()]*\)$", re.MULTILINE)
"""The two assignments that setuptools-scm 7 and newer write into the version file."""

Describe = Callable[[Path], Mapping[str, bytes]]
"""Given the unpacked wheel, gives files of dist-info by their path in it."""


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

    Kept are entry points, top-level names and licence files. ``vllm.__version__`` becomes the distribution's version.
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
    with TemporaryDirectory(prefix="vllm-wheels-assemble-") as temporary:
        folder = Path(temporary)
        unpack_wheel(raw, folder)
        _lay_over(folder, overlay, additions)
        _set_version(folder / VERSION_FILE, version)
        dist_info = _rename(folder, upstream.dist_info, dist_info_name(distribution, version))
        unpack_wheel(code, folder)
        shutil.copyfile(metadata, dist_info / "METADATA")
        for name, content in (describe(folder) if describe else {}).items():
            (dist_info / name).parent.mkdir(parents=True, exist_ok=True)
            (dist_info / name).write_bytes(content)
        return pack_wheel(folder, out, distribution=distribution, version=version, tag=wheel_tag(code), epoch=epoch)


def _require_named(metadata: Path, distribution: str, version: str) -> None:
    stated = HeaderParser().parsestr(metadata.read_text("utf-8"))
    name, number = str(stated["Name"]), str(stated["Version"])
    if canonicalize_name(name) != canonicalize_name(distribution) or number != version:
        what = f"METADATA is not that of {distribution} {version}"
        raise WheelError(what, why=f"it says {name} {number}", remedy="make the metadata of the variant anew")


def _lay_over(folder: Path, overlay: Path, additions: Collection[str]) -> None:
    for source in sorted(path for path in overlay.rglob("*") if path.is_file()):
        name = source.relative_to(overlay).as_posix()
        goal = folder / name
        if goal.is_file() == (name in additions):
            what = f"{name} cannot be laid over the compiled wheel"
            why = (
                "it is said to be new but the wheel has it"
                if goal.is_file()
                else "the wheel has no such file to replace"
            )
            raise WheelError(what, why=why, remedy="correct the patch that makes the file for this release")
        if goal.is_file() and goal.read_bytes().startswith(ELF_MAGIC):
            what = f"{name} cannot be laid over the compiled wheel"
            raise WheelError(what, why="it would replace compiled code", remedy="change compiled code by compiling")
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, goal)


def _set_version(path: Path, version: str) -> None:
    text = path.read_text("utf-8") if path.is_file() else ""
    text, texts = VERSION_TEXT.subn(rf"\g<1>'{version}'", text)
    text, tuples = VERSION_TUPLE.subn(rf"\g<1>{version_tuple(version)!r}", text)
    if (texts, tuples) != (1, 1):
        what = f"{VERSION_FILE} of the compiled wheel does not state its version in the known way"
        why = f"found {texts} assignments of __version__ and {tuples} of __version_tuple__ instead of one each"
        raise WheelError(what, why=why, remedy="build the raw wheel with setuptools-scm 7 or newer")
    path.write_text(text, "utf-8")


def version_tuple(text: str) -> tuple[int | str, ...]:
    """The tuple that setuptools-scm writes for a version: numbers of the release, then the other parts as text."""
    version = Version(text)
    pre = "".join(str(part) for part in version.pre) if version.pre else None
    post = None if version.post is None else f"post{version.post}"
    dev = None if version.dev is None else f"dev{version.dev}"
    return (*version.release, *(part for part in (pre, post, dev, version.local) if part))


def _rename(folder: Path, old: str, new: str) -> Path:
    goal = folder / new
    (folder / old).rename(goal)
    for name in MADE_ANEW:
        (goal / name).unlink(missing_ok=True)
    licences = [path for path in goal.iterdir() if path.is_file() and LICENCE.fullmatch(path.name)]
    for path in licences:
        (goal / "licenses").mkdir(exist_ok=True)
        path.rename(goal / "licenses" / path.name)
    data = folder / f"{old.removesuffix(DIST_INFO)}.data"
    if data.is_dir():
        data.rename(folder / f"{new.removesuffix(DIST_INFO)}.data")
    return goal
