"""Writes a static package index: HTML (PEP 503), JSON (PEP 691, PEP 700), metadata (PEP 658), yanked (PEP 592).

A file lies below its hash and is never replaced; the pages are a set, to which a link is switched at once.
"""

import hashlib
import html
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pypi_simple import Link, RepositoryPage

from vllm_wheels.core.errors import PublicationError, WheelError
from vllm_wheels.core.formats.wheel_name import WheelName, wheels_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of, write_synced
from vllm_wheels.core.host.http import LISTING, persistently, session, unreachable

SIMPLE, PACKAGES, SETS = "simple", "packages", ".sets"
NAMED = re.compile(rf"{PACKAGES}/([0-9a-f]{{64}})/")
API = {"api-version": "1.1"}
TORCH = ("torch", "torchvision", "torchaudio", "torchcodec")
PAGE = replace(LISTING, kinds=("text/html",))
"""Of links to CPU builds of torch."""

HASH = re.compile(r"sha256=([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file that the index lists."""

    name: str  # of the file
    url: str  # relative to the project's page, or absolute
    sha256: str  # of its bytes; empty where a foreign page does not say
    size: int | None = None  # in bytes; None where unknown
    requires_python: str | None = None  # of its metadata
    metadata_sha256: str = ""  # of its metadata file; empty where there is none
    yanked: str | None = None  # reason; None if it is not

    @property
    def project(self) -> str:
        """Normalised name of its project."""
        return WheelName.parse(self.name).distribution

    @property
    def version(self) -> Version:
        """Of the project."""
        return WheelName.parse(self.name).version

    def as_json(self) -> dict[str, Any]:
        """The entry of PEP 691."""
        metadata = {"sha256": self.metadata_sha256} if self.metadata_sha256 else False
        entry: dict[str, Any] = {
            "filename": self.name,
            "url": self.url,
            "hashes": {"sha256": self.sha256} if self.sha256 else {},
            "core-metadata": metadata,
            "data-dist-info-metadata": metadata,
            "yanked": self.yanked if self.yanked is not None else False,
        }
        optional = {"size": self.size, "requires-python": self.requires_python}
        return entry | {name: value for name, value in optional.items() if value is not None}

    def as_html(self) -> str:
        """The anchor of PEP 503."""
        metadata = f"sha256={self.metadata_sha256}" if self.metadata_sha256 else None
        attributes = {
            "href": f"{self.url}#sha256={self.sha256}" if self.sha256 else self.url,
            "data-requires-python": self.requires_python,
            "data-core-metadata": metadata,
            "data-dist-info-metadata": metadata,
            "data-yanked": self.yanked,
        }
        written = " ".join(f'{key}="{html.escape(text)}"' for key, text in attributes.items() if text is not None)
        return f"<a {written}>{html.escape(self.name)}</a><br>"


def write_index(
    folder: Path,
    wheels: Iterable[Path],
    *,
    yanked: Mapping[str, str],
    torch_links: Iterable[str],
    timeout_seconds: float,
) -> dict[str, list[Entry]]:
    """Writes an index that any web server can serve.

    It lists these wheels and no others, whatever it listed before; they are copies, which share nothing with the store.
    Of CPU builds of torch, in folders and pages of ``torch_links``, those are listed that a wheel requires.
    ``yanked`` has reasons by SHA-256. Returns what it lists, by project.

    Raises:
        PublicationError: there is no wheel, two have one name and different bytes, or a folder of torch wheels does not
            exist.
        WheelError: a file is not a sound wheel.
        IndexUnreachableError: a page of torch wheels does not answer.
    """
    entries: dict[str, Entry] = {}
    wanted: set[str] = set()
    for wheel in wheels:
        entry = _entry(folder, wheel, yanked)
        _require_same(entries.get(entry.name), entry)
        entries[entry.name] = entry
        wanted |= {line for line in WheelFile.read(wheel).metadata.get_all("Requires-Dist", []) if _is_torch(line)}
    if not entries:
        what = f"the index {folder} would be empty"
        raise PublicationError(what, why="there is no wheel to list", remedy="build and verify one first, or see --all")
    for link in torch_links:
        for entry in _torch(folder, link, wanted, timeout_seconds):
            entries.setdefault(entry.name, entry)
    projects = _by_project(entries.values())
    pages = _root(projects)
    for project, listed in projects.items():
        pages |= _project(project, listed)
    _switch(folder, pages)
    return projects


def unlinked(wheels: Iterable[Path], listed: Mapping[str, Iterable[Entry]]) -> tuple[str, ...]:
    """The torch packages that a wheel requires and the index does not list.

    An installer takes them from its other indexes, whose ordinary builds are for CUDA and do not fit a CPU torch.
    """
    lines = {line for wheel in wheels for line in WheelFile.read(wheel).metadata.get_all("Requires-Dist", [])}
    names = {canonicalize_name(Requirement(line).name) for line in lines if _is_torch(line)}
    return tuple(sorted(name for name in names if name not in listed))


def _by_project(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    projects: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda each: (each.project, each.version, each.name)):
        projects.setdefault(entry.project, []).append(entry)
    return projects


def _require_same(known: Entry | None, entry: Entry) -> None:
    if known and known.sha256 != entry.sha256:
        what = f"there are two different files called {entry.name}"
        why = f"sha256 {known.sha256[:12]} and {entry.sha256[:12]}"
        raise PublicationError(what, why=why, remedy="remove the one that must not be offered")


def _entry(folder: Path, wheel: Path, yanked: Mapping[str, str]) -> Entry:
    file = WheelFile.read(wheel)
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{file.dist_info}/METADATA")
    sha256 = sha256_of(wheel)
    goal = folder / PACKAGES / sha256 / wheel.name
    if not (goal.is_file() and sha256_of(goal) == sha256):
        _copy(wheel, goal, metadata)
    return Entry(
        name=wheel.name,
        url=f"../../{PACKAGES}/{sha256}/{wheel.name}",
        sha256=sha256,
        size=wheel.stat().st_size,
        requires_python=file.metadata["Requires-Python"],
        metadata_sha256=hashlib.sha256(metadata).hexdigest(),
        yanked=yanked.get(sha256),
    )


def _copy(wheel: Path, goal: Path, metadata: bytes) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    goal.with_name(f"{goal.name}.metadata").write_bytes(metadata)
    temporary = goal.with_name(f".{goal.name}.{os.getpid()}")
    shutil.copyfile(wheel, temporary)
    temporary.replace(goal)


def _is_torch(requirement: str) -> bool:
    return canonicalize_name(Requirement(requirement).name) in TORCH


def _torch(folder: Path, link: str, wanted: Iterable[str], timeout_seconds: float) -> Iterable[Entry]:
    requirements = [Requirement(line) for line in wanted]
    for name, offer in _offers(link, timeout_seconds):
        try:
            found = WheelName.parse(name)
        except WheelError:
            continue
        fits = any(
            canonicalize_name(each.name) == found.distribution
            and each.specifier.contains(found.version, prereleases=True)
            for each in requirements
        )
        if not fits or found.version.local != "cpu":
            continue
        if isinstance(offer, Path):
            yield _entry(folder, offer, {})
        else:
            digest = HASH.search(urlsplit(offer).fragment)
            yield Entry(name=name, url=offer.partition("#")[0], sha256=digest[1] if digest else "")


def _offers(link: str, timeout_seconds: float) -> list[tuple[str, Path | str]]:
    if "://" not in link:
        place = Path(link).expanduser()
        if not place.is_dir():
            what = f"there is no folder {link}"
            raise PublicationError(what, why="publish.torch_links names it", remedy="correct publish.torch_links")
        return [(path.name, path.resolve()) for path in wheels_in(place)]
    try:
        with session(PAGE) as opened:
            links = persistently(partial(_links, opened, link, timeout_seconds), PAGE)
    except requests.RequestException as error:
        what = f"the page {link} of torch wheels cannot be read"
        remedy = "correct publish.torch_links, or look after the network"
        raise unreachable(what, error, timeout_seconds=timeout_seconds, remedy=remedy) from error
    urls = [urljoin(link, each.url) for each in links]
    return [(unquote(urlsplit(url).path.rpartition("/")[2]), url) for url in urls]


def _links(opened: requests.Session, page: str, timeout_seconds: float) -> list[Link]:
    answer = opened.get(page, timeout=timeout_seconds)
    answer.raise_for_status()
    return RepositoryPage.from_html(answer.text, base_url=answer.url).links


def _switch(folder: Path, pages: Mapping[str, str]) -> None:
    """Writes a set of pages beside the one that is served, and puts it in its place in a single step (rename(2))."""
    made = folder / SETS / hashlib.sha256(json.dumps(pages, sort_keys=True).encode()).hexdigest()
    if not made.is_dir():
        being_made = made.with_name(f"{made.name}.{os.getpid()}")
        for name, text in pages.items():
            (being_made / name).parent.mkdir(parents=True, exist_ok=True)
            write_synced(being_made / name, text)
        being_made.rename(made)
    served = folder / SIMPLE
    before = served.resolve() if served.is_symlink() else None
    if served.is_dir() and before is None:
        # As earlier versions wrote it: a folder, which no link can replace.
        served.rename(folder / SETS / f"folder.{os.getpid()}")
    link = folder / f".{SIMPLE}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(made.relative_to(folder))
    link.replace(served)
    _remove_others(folder, {made.resolve(), before or made.resolve()})


def _remove_others(folder: Path, kept: set[Path]) -> None:
    """Removes pages and files of older sets; those of the last one stay for who is reading its pages."""
    for old in (folder / SETS).iterdir():
        if old.resolve() not in kept:
            shutil.rmtree(old)
    texts = (page.read_text("utf-8") for each in kept for page in each.rglob("index.json"))
    named = {found for text in texts for found in NAMED.findall(text)}
    for package in (folder / PACKAGES).iterdir():
        if package.name not in named:
            if package.is_dir():
                shutil.rmtree(package)
            else:
                package.unlink()


def _project(project: str, entries: Iterable[Entry]) -> dict[str, str]:
    listed = list(entries)
    versions = list(dict.fromkeys(str(entry.version) for entry in listed))
    page = {"meta": API, "name": project, "versions": versions, "files": [entry.as_json() for entry in listed]}
    return _page(f"{project}/", page, f"Links for {project}", [entry.as_html() for entry in listed])


def _root(projects: Iterable[str]) -> dict[str, str]:
    names = sorted(projects)
    page = {"meta": API, "projects": [{"name": name} for name in names]}
    return _page("", page, "Simple index", [f'<a href="{name}/">{name}</a><br>' for name in names])


def _page(place: str, page: Mapping[str, Any], title: str, lines: Iterable[str]) -> dict[str, str]:
    meta = '<meta name="pypi:repository-version" content="1.1">'
    head = f'<head><meta charset="utf-8">{meta}<title>{html.escape(title)}</title></head>'
    body = "\n".join(lines)
    text = f"<!DOCTYPE html>\n<html>{head}\n<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    return {f"{place}index.json": json.dumps(page, indent=1), f"{place}index.html": text}
