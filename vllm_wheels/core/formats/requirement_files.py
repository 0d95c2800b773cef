"""Reads requirement files as pip does: includes followed, comments and options left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vllm_wheels.core.errors import SourceError
from vllm_wheels.core.formats.versions import version_in

COMMENT = re.compile(r"(^|\s+)#.*$")
INCLUDE = re.compile(r"(?:-r|--requirement)[\s=]*(?P<file>\S+)")
INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url|-f|--find-links|--trusted-host)\b.*")
"""Options that say where packages are, which is for the user's settings to say; others say which, and are refused."""


def read(path: Path, *, root: Path) -> tuple[str, ...]:
    """The requirement lines of a file and its includes, in order; they may not leave the ``root`` of the source tree.

    Raises:
        SourceError: a file is missing or lies outside, or a line is no requirement.
    """
    return tuple(_read(path, root=root, seen=()))


def parse(line: str, *, file: str) -> Requirement:
    """Parses a requirement line; SourceError where it is none (PEP 508)."""
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        what = f"{file} has a line that is no requirement: {line}"
        why = str(error).partition("\n")[0]
        raise SourceError(
            what, why=why, remedy="choose another release, or correct the file in a local tree"
        ) from error


def pinned(requirement: Requirement) -> Version | None:
    """The one version that a requirement allows; None where it allows several."""
    exact = (each.version for each in requirement.specifier if each.operator in {"==", "==="})
    return next((version for each in exact if (version := version_in(each))), None)


def merged(lines: Iterable[str], over: Iterable[str], *, file: str) -> tuple[str, ...]:
    """Merges two sets of requirement lines; for a package that both name, the lines of ``over`` win."""
    winners = tuple(over)
    named = {canonicalize_name(parse(line, file=file).name) for line in winners}
    kept = [line for line in lines if canonicalize_name(parse(line, file=file).name) not in named]
    return (*kept, *winners)


def _read(path: Path, *, root: Path, seen: tuple[Path, ...]) -> Iterator[str]:
    name = str(path.relative_to(root))
    if path in seen:
        what = f"{name} includes itself"
        raise SourceError(what, why="a requirement file may not", remedy="choose another release, or correct the file")
    for line in _text(path, name).replace("\\\n", "").splitlines():
        text = COMMENT.sub("", line).strip()
        include = INCLUDE.fullmatch(text)
        if include:
            inner = Path(path.parent, include["file"]).resolve()
            if not inner.is_relative_to(root.resolve()):
                what = f"{name} includes {include['file']}"
                raise SourceError(what, why="it lies outside the source tree", remedy="choose another release")
            yield from _read(root / inner.relative_to(root.resolve()), root=root, seen=(*seen, path))
        elif text.startswith("-"):
            if not INDEX.fullmatch(text):
                what = f"{name} has an option that cannot be followed: {text}"
                why = "it changes which packages are required, and a wheel's metadata has no place for it"
                raise SourceError(what, why=why, remedy="choose another release, or correct the file in a local tree")
        elif text:
            parse(text, file=name)
            yield text


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"{name} cannot be read"
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SourceError(what, why=why, remedy="choose a release whose source has this file") from error
