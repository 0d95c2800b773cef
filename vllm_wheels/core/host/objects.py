"""Objects by name on a server: in a bucket (S3, Google, Azure), or read-only behind any web server.

obstore asks buckets: one wheel without dependencies speaks all three clouds and what imitates them, writes on condition
that nothing is there, and streams. fsspec would need a package for each cloud with an asynchronous client below, and
leaves conditions to each of them. Credentials are those that the clouds' own tools find, in the environment or from the
machine's role; an address holds none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, quote, urlsplit

import obstore
import requests
import urllib3
from obstore import exceptions
from obstore.store import from_url

from vllm_wheels.core.errors import RemoteStoreError, SettingsError
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.http import Policy, persistently, reason, session
from vllm_wheels.core.texts import redacted

if TYPE_CHECKING:
    from obstore.store import ObjectStore

BUCKETS = frozenset({"s3", "gs", "az"})
WEB = frozenset({"http", "https"})
OPTIONS = frozenset({"endpoint", "region"})
"""What an address of a bucket may say after its ``?``."""

NOT_FOUND = 404
RETRIES = 2
CONNECT_SECONDS = 5.0
"""A server that is not there costs this long at each attempt, whatever an answer may take."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An object as its server lists it."""

    name: str
    size: int  # bytes
    modified: datetime


class Objects(Protocol):
    """Where objects are kept.

    Each method raises RemoteStoreError where the server is out of reach, refuses, or is too slow.
    """

    def read(self, name: str) -> AbstractContextManager[Iterator[bytes] | None]:
        """Opens an object: a context with an iterator of its bytes, or with None where there is none."""

    def create(self, name: str, path: Path) -> bool:
        """Writes a file as an object, whole; False where there is one of the name, which is left alone."""

    def listed(self) -> Iterator[Listed]:
        """All objects."""

    def delete(self, names: list[str]) -> None:
        """Removes objects."""


def objects(url: str, *, answer_seconds: float, transfer_seconds: float) -> Objects:
    """The server of an address such as ``s3://bucket/prefix?endpoint=...&region=...`` or ``https://host/folder``.

    ``answer_seconds`` limits the silence of a server, ``transfer_seconds`` one object as a whole.

    Raises:
        SettingsError: it is no such address.
    """
    parts = urlsplit(url)
    if parts.scheme in WEB and parts.netloc:
        return WebFolder(url.rstrip("/"), answer_seconds, transfer_seconds)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme not in BUCKETS or not parts.netloc or options.keys() - OPTIONS or parts.username:
        what = f"{redacted(url)} is no address of a remote store"
        why = "it is neither a bucket (s3://, gs://, az://), with endpoint and region at most, nor http:// or https://"
        raise SettingsError(what, why=why, remedy="correct store.remotes; passwords stay in the environment")
    return Bucket(parts._replace(query="").geturl(), options, answer_seconds, transfer_seconds)


@dataclass(frozen=True)
class Bucket:
    """A bucket, below a prefix."""

    url: str
    options: dict[str, str]
    answer_seconds: float
    transfer_seconds: float

    @cached_property
    def _store(self) -> ObjectStore:
        opened: ObjectStore = from_url(
            self.url,
            config=self.options,  # type: ignore[call-overload]  # each cloud has a type of its own
            client_options={
                "allow_http": self.options.get("endpoint", "").startswith("http:"),
                "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, self.answer_seconds)),
                "read_timeout": timedelta(seconds=self.answer_seconds),
                "timeout": timedelta(seconds=self.transfer_seconds),
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": timedelta(seconds=self.transfer_seconds),
                "backoff": {
                    "base": 2,
                    "init_backoff": timedelta(seconds=0.2),
                    "max_backoff": timedelta(seconds=self.answer_seconds),
                },
            },
        )
        return opened

    @contextmanager
    def read(self, name: str) -> Iterator[Iterator[bytes] | None]:
        """Opens an object."""
        with self._explained():
            try:
                found = obstore.get(self._store, name)
            except (exceptions.NotFoundError, FileNotFoundError):
                yield None
                return
            yield (bytes(chunk) for chunk in found.stream(min_chunk_size=limits.CHUNK_BYTES))

    def create(self, name: str, path: Path) -> bool:
        """Writes a file as an object; it is held in memory, for only a write in one piece can have a condition."""
        content = path.read_bytes()
        with self._explained():
            try:
                obstore.put(self._store, name, content, mode="create", use_multipart=False)
            except exceptions.AlreadyExistsError:
                return False
            except FileNotFoundError as error:
                raise _unreachable(self.url, f"there is no such bucket ({_first_line(error)})") from error
        return True

    def listed(self) -> Iterator[Listed]:
        """All objects."""
        with self._explained():
            for page in obstore.list(self._store):
                for each in page:
                    yield Listed(name=each["path"], size=each["size"], modified=each["last_modified"])

    def delete(self, names: list[str]) -> None:
        """Removes objects."""
        with self._explained():
            obstore.delete(self._store, names)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except exceptions.BaseError as error:
            raise _unreachable(self.url, _first_line(error)) from error


@dataclass(frozen=True)
class WebFolder:
    """A folder of static files behind a web server."""

    url: str
    answer_seconds: float
    transfer_seconds: float

    @contextmanager
    def read(self, name: str) -> Iterator[Iterator[bytes] | None]:
        """Opens an object."""
        policy = Policy(deadline_seconds=self.transfer_seconds, attempts=RETRIES, limit_bytes=limits.FILE_BYTES)
        try:
            with session(policy) as opened, persistently(lambda: self._answer(opened, name), policy) as answer:
                if answer.status_code == NOT_FOUND:
                    yield None
                else:
                    yield answer.raw.stream(limits.CHUNK_BYTES, decode_content=False)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _unreachable(redacted(self.url), reason(error, timeout_seconds=self.answer_seconds)) from error

    def _answer(self, opened: requests.Session, name: str) -> requests.Response:
        as_it_is = {"Accept-Encoding": "identity"}
        url, seconds = f"{self.url}/{quote(name)}", self.answer_seconds
        answer = opened.get(url, stream=True, timeout=seconds, headers=as_it_is)
        if answer.status_code != NOT_FOUND:
            answer.raise_for_status()
        return answer

    def create(self, name: str, path: Path) -> bool:  # noqa: ARG002 - as in Objects
        """Refuses, as do ``listed`` and ``delete``: static files are only read."""
        raise self._read_only()

    def listed(self) -> Iterator[Listed]:
        """Refuses."""
        raise self._read_only()

    def delete(self, names: list[str]) -> None:  # noqa: ARG002
        """Refuses."""
        raise self._read_only()

    def _read_only(self) -> RemoteStoreError:
        what = f"the remote store {redacted(self.url)} can only be read"
        why = "a web server of static files takes and lists nothing"
        return RemoteStoreError(what, why=why, remedy="name the bucket behind it (s3://, gs://, az://)")


def _unreachable(url: str, why: str) -> RemoteStoreError:
    what = f"the remote store {url} did not answer as it should"
    return RemoteStoreError(what, why=why, remedy="check the network, the credentials and store.remotes")


def _first_line(error: Exception) -> str:
    # Below the first line obstore prints the error again, as Rust's debugger would.
    return str(error).strip().splitlines()[0]
