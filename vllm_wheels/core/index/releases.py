"""Asks the package index which releases of vLLM exist, and what their source archives are.

The index is read by its simple API (PEP 503, PEP 691); the default address is pypi-simple's own. Whatever asks it
raises IndexUnreachableError where it does not answer, or not as an index does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from packaging.version import Version
from pypi_simple import DistributionPackage, NoSuchProjectError, ProjectPage, PyPISimple

from vllm_wheels.core.errors import IndexUnreachableError, SourceError, UnknownReleaseError, UnsupportedPythonError
from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.host.http import LISTING, index_session, index_url, persistently, unreachable
from vllm_wheels.core.index.pages import UNREADABLE, of_index
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.texts import redacted, without_credentials

PROJECT = "vllm"

ARCHIVES = (".tar.gz", ".tar.xz", ".zip")


@dataclass(frozen=True, kw_only=True)
class SourceArchive:
    """A release's source archive as the index announces it."""

    filename: str  # such as ``vllm-0.32.0.tar.gz``
    url: str  # where it is; without credentials
    sha256: str | None  # published hash
    size: int | None  # in bytes; None where the index does not say


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release as the index announces it."""

    version: str  # as upstream writes it
    requires_python: str | None  # specifier such as ``>=3.11,<3.15``; None where the index does not say
    yanked: bool  # all of its files are withdrawn
    prerelease: bool  # alpha, beta, candidate or development release
    uploaded: datetime | None  # when its first file was; None where the index does not say
    sdist: SourceArchive | None  # its source archive, if there is one


def releases(settings: Settings) -> list[Release]:
    """All releases that the index knows, the newest last."""
    files: dict[Version, list[DistributionPackage]] = {}
    page = project_page(settings, PROJECT)
    if page is None:
        raise _no_index(settings, PROJECT, f"it answered 404: it has no {PROJECT}, or the address is wrong")
    for package in page.packages:
        # Names that PEP 440 does not know are no releases; indexes hold some for historical reasons.
        if version := version_in(package.version):
            files.setdefault(version, []).append(package)
    if not files:
        raise _no_index(settings, PROJECT, f"the page names no file of {PROJECT}")
    return [_release(version, files[version]) for version in sorted(files)]


def find(settings: Settings, version: str) -> Release:
    """The release of a version.

    Raises:
        UnknownReleaseError: the index has no such release; names the nearest and the newest ones.
    """
    known = releases(settings)
    for release in known:
        if Version(release.version) == Version(version):
            return release
    what = f"there is no release {version} of vLLM"
    why = f"{_shown(settings)} does not have it"
    names = [release.version for release in known]
    older = [name for name in names if Version(name) < Version(version)]
    near = names[max(len(older) - 1, 0) : len(older) + 1]
    choice = sorted({*near, *names[-3:]}, key=Version)
    raise UnknownReleaseError(what, why=why, remedy=f"choose one of {', '.join(choice)}")


def require_python(settings: Settings, *, release: str, python: str) -> None:
    """Makes sure that a release supports a Python, as far as the index announces it.

    Raises:
        UnsupportedPythonError: it does not.
        UnknownReleaseError: the index has no such release.
    """
    asked = find(settings, release).requires_python
    if not supports(asked, python):
        what = f"vLLM {release} does not support Python {python}"
        raise UnsupportedPythonError(what, why=f"it asks for {asked}", remedy="give another --python-version")


def sdist(settings: Settings, version: str) -> SourceArchive:
    """The source archive of a release.

    Raises:
        UnknownReleaseError: the index has no such release.
        SourceError: it has no source archive, or one without a published SHA-256.
    """
    return archive_of(settings, find(settings, version))


def archive_of(settings: Settings, release: Release) -> SourceArchive:
    """The source archive of a release that the index announced."""
    archive = release.sdist
    if archive is None:
        what = f"vLLM {release.version} has no source archive"
        why = f"{_shown(settings)} has only wheels of it"
        raise SourceError(what, why=why, remedy='set source.origin = "git" to take it from its tag')
    if archive.sha256 is None:
        what = f"{archive.filename} cannot be checked"
        why = f"{_shown(settings)} publishes no SHA-256 of it"
        raise SourceError(what, why=why, remedy="set index.url to an index that does, or source.origin to git or path")
    if urlsplit(archive.url).scheme == "file" and _local(without_credentials(index_url(settings))[0]) is None:
        what = f"{archive.filename} is not taken from {archive.url}"
        why = f"{_shown(settings)} links to a file of this machine, which is not its to give"
        raise SourceError(what, why=why, remedy="set index.url to another index")
    return archive


def project_page(settings: Settings, project: str) -> ProjectPage | None:
    """The page of a project; None for one that the index does not have."""
    url, _ = without_credentials(index_url(settings))
    folder = _local(url)
    if folder:
        return _local_page(settings, folder, project)
    timeout = settings.index.timeout_seconds
    try:
        with PyPISimple(url, session=index_session(settings, LISTING)) as client:
            return of_index(persistently(lambda: client.get_project_page(project, timeout=timeout), LISTING))
    except NoSuchProjectError:
        return None
    except requests.RequestException as error:
        what = f"package index {_shown(settings)} cannot be read"
        raise unreachable(what, error, timeout_seconds=timeout) from error
    except UNREADABLE as error:
        raise _no_index(settings, project, f"the answer is no index page ({type(error).__name__})") from error


def _local(url: str) -> Path | None:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(url).expanduser().absolute()


def _local_page(settings: Settings, folder: Path, project: str) -> ProjectPage:
    path = folder / project / "index.html"
    try:
        return ProjectPage.from_html(project, path.read_text("utf-8"), base_url=path.as_uri())
    except (OSError, ValueError) as error:
        raise _no_index(settings, project, f"{path} cannot be read") from error


def _no_index(settings: Settings, project: str, why: str) -> IndexUnreachableError:
    what = f"{_shown(settings)} is not a package index with {project}"
    return IndexUnreachableError(what, why=why, remedy="set index.url to the simple API of a package index")


def _shown(settings: Settings) -> str:
    return redacted(index_url(settings))


def _release(version: Version, packages: Iterable[DistributionPackage]) -> Release:
    packages = list(packages)
    archives = sorted(
        (package for package in packages if package.package_type == "sdist" and package.filename.endswith(ARCHIVES)),
        key=lambda package: next(rank for rank, end in enumerate(ARCHIVES) if package.filename.endswith(end)),
    )
    first = (archives or packages)[0]
    return Release(
        version=first.version or str(version),
        requires_python=first.requires_python,
        yanked=all(package.is_yanked for package in packages),
        prerelease=version.is_prerelease,
        uploaded=min((package.upload_time for package in packages if package.upload_time), default=None),
        sdist=_archive(archives[0]) if archives else None,
    )


def _archive(package: DistributionPackage) -> SourceArchive:
    url, _ = without_credentials(package.url)
    sha256 = package.digests.get("sha256")
    return SourceArchive(filename=package.filename, url=url, sha256=sha256, size=package.size)
