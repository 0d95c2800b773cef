"""Downloads a file: streamed beside its place, checked against its published size and hash, then renamed."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3.exceptions

from vllm_wheels.core.errors import HashMismatchError, SourceError
from vllm_wheels.core.host.commands import Download
from vllm_wheels.core.host.http import DOWNLOAD, index_session, persistently, unreachable
from vllm_wheels.core.host.limits import CHUNK_BYTES
from vllm_wheels.core.settings import Settings


def download(wanted: Download, path: Path, *, settings: Settings) -> None:
    """Downloads a file, in as many attempts as the policy of downloads allows.

    A URL may be of ``file:``; nothing is at the path unless it is whole and the right file.

    Raises:
        HashMismatchError: size or hash is not the published one.
        IndexUnreachableError: the server did not answer or broke off.
        SourceError: a ``file:`` URL names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        size, sha256 = _fetched(wanted, partial, settings)
        _check(wanted, path.name, size=size, sha256=sha256)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _fetched(wanted: Download, partial: Path, settings: Settings) -> tuple[int, str]:
    if wanted.url.startswith("file:"):
        return _write(_local_chunks(Path(unquote(urlsplit(wanted.url).path))), wanted, partial)
    seconds = settings.index.timeout_seconds
    # Some servers call a .tar.gz a gzip-encoded .tar: the bytes are taken as they come, which is what was hashed.
    as_it_is = {"Accept-Encoding": "identity"}

    def attempt() -> tuple[int, str]:
        with opened.get(wanted.url, stream=True, timeout=seconds, headers=as_it_is) as response:
            response.raise_for_status()
            return _write(response.raw.stream(CHUNK_BYTES, decode_content=False), wanted, partial)

    try:
        with index_session(settings, DOWNLOAD) as opened:
            return persistently(attempt, DOWNLOAD)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        what = f"{wanted.url} cannot be downloaded"
        raise unreachable(what, error, timeout_seconds=seconds) from error


def _write(chunks: Iterable[bytes], wanted: Download, partial: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with partial.open("wb") as output:
        for chunk in chunks:
            output.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if wanted.size is not None and size > wanted.size:
                break
    return size, digest.hexdigest()


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
