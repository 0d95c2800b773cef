"""Lets no HTTP answer be too slow, too long, too large or of another kind.

Time-outs of requests limit each single piece of an answer: a server that sends one byte every two seconds would hold a
program for as long as it likes.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from threading import Timer
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from vllm_wheels.core.host import limits


class SlowAnswerError(requests.Timeout):
    """An answer came too slowly, or not to its end within the deadline; its text says which."""


class WrongAnswerError(requests.RequestException):
    """An answer is larger than allowed, or of another kind than was asked for; its text says which."""


class LimitedAdapter(HTTPAdapter):
    """Sends once; begins a deadline that its answers keep to.

    Content types other than ``kinds`` are refused, unless that is empty.
    """

    def __init__(self, *, deadline_seconds: float, limit_bytes: int, kinds: Sequence[str]) -> None:
        super().__init__()
        self._until = time.monotonic() + deadline_seconds
        self._limit = limit_bytes
        self._kinds = kinds

    def get_connection_with_tls_context(self, *arguments: Any, **named: Any) -> Any:
        """The pool, whose connections are now punctual."""
        pool = super().get_connection_with_tls_context(*arguments, **named)
        if not issubclass(pool.ConnectionCls, _PunctualHead):
            pool.ConnectionCls = type("_Punctual", (_PunctualHead, pool.ConnectionCls), {})
        return pool

    def send(self, request: requests.PreparedRequest, *arguments: Any, **named: Any) -> requests.Response:
        """The answer, whose body is measured while it is read."""
        left = max(self._until - time.monotonic(), 0.001)
        seconds = min(named.get("timeout") or left, left)
        response = super().send(request, *arguments, **{**named, "timeout": seconds})
        _require_kind(response, self._kinds)
        response.raw = _Metered(response.raw, until=self._until, limit=self._limit, window=seconds)
        return response


class _PunctualHead:
    """A connection whose status line and headers come within its time-out, however many pieces they come in."""

    timeout: float | None
    sock: socket.socket

    def getresponse(self) -> urllib3.HTTPResponse:
        # Not the method of a TLS socket, which would have it read on in the clear.
        end = partial(socket.socket.shutdown, self.sock, socket.SHUT_RDWR)
        with _ended_at(time.monotonic() + (self.timeout or 0), end):
            return super().getresponse()  # type: ignore[misc, no-any-return]  # of the connection that it is mixed into


class _Metered:
    """The body of an answer, read as it comes and measured meanwhile."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, *, until: float, limit: int, window: float) -> None:
        self._raw = raw
        self._until = until
        self._limit = limit
        self._window = min(window, limits.SLOW_SECONDS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amt: int, *, decode_content: bool) -> Iterator[bytes]:
        """Chunks of the body.

        Raises:
            SlowAnswerError: it comes too slowly, or the deadline is over.
            WrongAnswerError: it is too large.
        """
        size = lately = 0
        since = time.monotonic()
        try:
            with _ended_at(self._until, self._raw.shutdown):
                while chunk := self._raw.read1(amt, decode_content=decode_content):
                    size, lately = size + len(chunk), lately + len(chunk)
                    _require_size(size, self._limit)
                    if (seconds := time.monotonic() - since) >= self._window:
                        _require_speed(lately, seconds)
                        since, lately = time.monotonic(), 0
                    yield chunk
        except BaseException as error:
            # A connection in the middle of an answer serves no other request.
            self._raw.close()
            if isinstance(error, TimeoutError):
                message = "its answer did not come to an end in time"
                raise SlowAnswerError(message) from error
            raise


def _require_size(size: int, limit: int) -> None:
    if size > limit:
        message = f"it sends more than {limit} bytes"
        raise WrongAnswerError(message)


def _require_speed(size: int, seconds: float) -> None:
    if size < limits.SLOW_BYTES_PER_SECOND * seconds:
        message = f"it sends less than {limits.SLOW_BYTES_PER_SECOND:.0f} bytes a second"
        raise SlowAnswerError(message)


def _require_kind(response: requests.Response, kinds: Sequence[str]) -> None:
    kind = response.headers.get("Content-Type", "nothing").partition(";")[0].strip()
    if response.ok and kinds and kind not in kinds:
        response.close()
        message = f"it answered with {kind}, not {' or '.join(kinds)}"
        raise WrongAnswerError(message, response=response)


@contextmanager
def _ended_at(until: float, end: Callable[[], None]) -> Iterator[None]:
    """Has a connection ended at a moment, whatever it waits for; then a TimeoutError is raised."""

    def end_quietly() -> None:
        # The answer may have come to its end at the same moment; TLS inside TLS has no socket to shut down.
        with suppress(OSError, ValueError, RuntimeError, TypeError):
            end()

    timer = Timer(max(until - time.monotonic(), 0), end_quietly)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException, urllib3.exceptions.HTTPError) as error:
        if time.monotonic() >= until and not isinstance(error, requests.RequestException):
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
    if time.monotonic() >= until:
        raise TimeoutError
