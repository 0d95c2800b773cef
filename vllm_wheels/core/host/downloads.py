"""Downloads a file: streamed beside its place, checked against its published size and hash, then renamed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3.exceptions

from vllm_wheels.core.errors import HashMismatchError, SourceError
from vllm_wheels.core.host.archives import CHUNK_BYTES
from vllm_wheels.core.host.commands import Download
from vllm_wheels.core.index.releases import session, unreachable
from vllm_wheels.core.settings import Settings

RETRIES = 2
PAUSE_SECONDS = 1.0
SERVER_ERROR = 500

PASSING = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)
"""What may be gone at the next attempt; an HTTP status below 500 will not be."""


def download(wanted: Download, path: Path, *, settings: Settings) -> None:
    """Downloads a file, in up to three attempts.

    Args:
        wanted: URL (also ``file:``), size and hash.
        path: where the file goes; nothing is there unless it is whole and the right one.
        settings: name the time to wait for an answer, and the index with its credentials.

    Raises:
        HashMismatchError: size or hash is not the published one.
        IndexUnreachableError: the server did not answer or broke off.
        SourceError: a ``file:`` URL names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        size, sha256 = _attempt(wanted, partial, settings)
        _check(wanted, path.name, size=size, sha256=sha256)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _attempt(wanted: Download, partial: Path, settings: Settings, *, retries: int = RETRIES) -> tuple[int, str]:
    try:
        return _stream(wanted, partial, settings)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        if not retries or not _passing(error):
            what = f"{wanted.url} cannot be downloaded"
            raise unreachable(what, error, timeout_seconds=settings.index.timeout_seconds) from error
    time.sleep(PAUSE_SECONDS)
    return _attempt(wanted, partial, settings, retries=retries - 1)


def _passing(error: Exception) -> bool:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= SERVER_ERROR
    return isinstance(error, PASSING)


def _stream(wanted: Download, partial: Path, settings: Settings) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with partial.open("wb") as output:
        for chunk in _chunks(wanted.url, settings):
            output.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if wanted.size is not None and size > wanted.size:
                break
    return size, digest.hexdigest()


def _chunks(url: str, settings: Settings) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        yield from _local_chunks(Path(unquote(parts.path)))
        return
    # Some servers call a .tar.gz a gzip-encoded .tar: the bytes are taken as they come, which is what was hashed.
    with (
        session(settings, url) as opened,
        opened.get(
            url, stream=True, timeout=settings.index.timeout_seconds, headers={"Accept-Encoding": "identity"}
        ) as response,
    ):
        response.raise_for_status()
        yield from response.raw.stream(CHUNK_BYTES, decode_content=False)


def _local_chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            yield from iter(lambda: stream.read(CHUNK_BYTES), b"")
    except OSError as error:
        what = f"{path} cannot be read"
        raise SourceError(what, why=error.strerror or "it is no file", remedy="check index.url") from error


def _check(wanted: Download, name: str, *, size: int, sha256: str) -> None:
    what = f"{name} is not the file that was published"
    remedy = "run the command again; if it happens again, set index.url to another index"
    if wanted.size is not None and size != wanted.size:
        relation = "more than" if size > wanted.size else f"{size} bytes, not"
        raise HashMismatchError(what, why=f"it has {relation} the published {wanted.size} bytes", remedy=remedy)
    if wanted.sha256 is not None and sha256 != wanted.sha256.lower():
        why = f"its SHA-256 is {sha256}, the published one {wanted.sha256}"
        raise HashMismatchError(what, why=why, remedy=remedy)
