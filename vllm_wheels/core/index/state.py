"""What an index really has of a project: file by file, through its simple API (PEP 503, PEP 691, PEP 700)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from pypi_simple import DistributionPackage, NoSuchProjectError, PyPISimple

from vllm_wheels.core.errors import CredentialsError, IndexUnreachableError, PublicationError
from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.host.http import DOWNLOAD, LISTING, persistently, reason, session, unreachable
from vllm_wheels.core.host.limits import CHUNK_BYTES
from vllm_wheels.core.index.pages import UNREADABLE, of_index
from vllm_wheels.core.index.repositories import Repository

FRESH = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
"""Asks caches on the way for the page as it is now."""

REFUSED = (401, 403)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file as the index lists it."""

    name: str  # of the file
    version: str  # of the project; empty where the name tells none
    sha256: str  # of its bytes, computed from a download where the index publishes none
    size: int | None  # in bytes; None where the index does not say
    uploaded: datetime | None  # when; None where the index does not say
    yanked: str | None  # why it is yanked; None if it is not
    url: str


@dataclass(frozen=True, kw_only=True)
class ProjectState:
    """A project on an index."""

    project: str
    exists: bool  # whether the index knows it
    files: Mapping[str, RemoteFile] = field(default_factory=dict)  # by name
    answered_at: datetime | None = None  # the index's own time; None where it does not say

    def of_version(self, version: str) -> tuple[RemoteFile, ...]:
        """Its files of one version."""
        return tuple(file for file in self.files.values() if file.version == version)


def project_state(
    repository: Repository, project: str, *, timeout_seconds: float, wanted: frozenset[str] = frozenset()
) -> ProjectState:
    """Asks an index for a project.

    Of the files in ``wanted`` the hash must be known, though it takes a download.

    Raises:
        CredentialsError: the index asks for a password, or for another one.
        IndexUnreachableError: the index did not answer, or not as an index does.
    """
    dates: list[datetime] = []
    with session(LISTING, home=repository.simple_url, reader=repository.reader) as opened:
        opened.hooks["response"].append(lambda response, **_: dates.extend(_date(response)))
        client = PyPISimple(repository.simple_url, session=opened)
        ask = partial(client.get_project_page, project, timeout=timeout_seconds, headers=FRESH)
        try:
            page = of_index(persistently(ask, LISTING))
            found = [_file(package, repository, wanted, timeout_seconds) for package in page.packages]
        except NoSuchProjectError:
            return ProjectState(project=project, exists=False, answered_at=next(iter(dates), None))
        except requests.RequestException as error:
            raise _unreadable(repository, project, error, timeout_seconds) from error
        except UNREADABLE as error:
            what = f"{repository.shown} is not a package index"
            said = (str(error).splitlines() or [type(error).__name__])[0]
            why = f"its page of {project} cannot be read ({said})"
            raise IndexUnreachableError(what, why=why, remedy="correct simple_url of the repository") from error
    files = {file.name: file for file in found}
    return ProjectState(project=project, exists=True, files=files, answered_at=next(iter(dates), None))


def _unreadable(
    repository: Repository, project: str, error: requests.RequestException, timeout_seconds: float
) -> PublicationError | IndexUnreachableError:
    what = f"the index {repository.shown} does not tell what it has of {project}"
    if error.response is not None and error.response.status_code in REFUSED:
        host = urlsplit(repository.simple_url).hostname
        remedy = f"put machine, login and password for {host} into your netrc file"
        return CredentialsError(what, why=reason(error, timeout_seconds=timeout_seconds), remedy=remedy)
    remedy = "check the network and simple_url, then run the command again"
    return unreachable(what, error, timeout_seconds=timeout_seconds, remedy=remedy)


def _file(
    package: DistributionPackage, repository: Repository, wanted: frozenset[str], timeout_seconds: float
) -> RemoteFile:
    sha256 = package.digests.get("sha256") or ""
    if not sha256 and package.filename in wanted:
        sha256 = _downloaded_sha256(repository, package.url, timeout_seconds)
    return RemoteFile(
        name=package.filename,
        version=str(version_in(package.version) or ""),
        sha256=sha256,
        size=package.size,
        uploaded=package.upload_time,
        yanked=(package.yanked_reason or "no reason given") if package.is_yanked else None,
        url=package.url,
    )


def _downloaded_sha256(repository: Repository, url: str, timeout_seconds: float) -> str:
    def attempt() -> str:
        digest = hashlib.sha256()
        with opened.get(url, stream=True, timeout=timeout_seconds, headers=FRESH) as response:
            response.raise_for_status()
            for chunk in response.iter_content(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    with session(DOWNLOAD, home=repository.simple_url, reader=repository.reader) as opened:
        return persistently(attempt, DOWNLOAD)


def _date(response: Any) -> list[datetime]:
    try:
        return [parsedate_to_datetime(response.headers.get("Date", "")).astimezone(UTC)]
    except ValueError:
        return []
