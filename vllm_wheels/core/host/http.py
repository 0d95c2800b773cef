"""HTTP as this program speaks it: one policy of retries, and limits of time, speed, size and kind for every answer.

tenacity retries. urllib3's ``Retry`` works below requests, where a body that breaks off, a deadline over all attempts,
and an upload that looks at the index before it is sent again are out of reach; stamina, which is built on tenacity,
takes no clock of the caller's. What urllib3's class reads well is used: the Retry-After header.
"""

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3
from pypi_simple import PYPI_SIMPLE_ENDPOINT
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth

from vllm_wheels.core.errors import IndexUnreachableError
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.transport import LimitedAdapter, SlowAnswerError, WrongAnswerError
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.texts import without_credentials

T = TypeVar("T")

INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
"""Asked in this order where the settings name no index."""

CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "PIP_CERT", "SSL_CERT_FILE")

UV_NAME = re.compile(r"^[A-Za-z0-9._-]+=")
"""uv allows ``name=https://...``."""

SERVER_ERROR = 500
BUSY = (408, 425, 429)
"""Statuses below 500 that may be gone at the next attempt: time-out, too early, too many requests."""

JITTER = 0.25
"""Up to this share is added to a pause at random, so that many builds do not come back at the same moment."""

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (requests.Timeout, "no answer within {seconds:.0f} s"),
    (urllib3.exceptions.ReadTimeoutError, "no answer within {seconds:.0f} s"),
    (requests.exceptions.SSLError, "its certificate is not trusted"),
    (requests.exceptions.ProxyError, "the proxy does not let the connection through"),
    (requests.ConnectionError, "no connection could be made, or it broke"),
    (urllib3.exceptions.ProtocolError, "no connection could be made, or it broke"),
)
"""What a failed request says, by its kind; the first that fits."""

INDEX_REMEDY = "check the network, or set index.url to an index that answers"


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time and chance, to be replaced by a test."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


CLOCK = Clock()


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long a server is tried, and what it may send."""

    deadline_seconds: float  # for all attempts and pauses together
    attempts: int | None = 3  # at most; None for as many as the deadline allows
    first_pause_seconds: float = 1.0  # after the first attempt; doubled after each further one
    # Between two attempts, where the server asks for no other
    longest_pause_seconds: float = limits.LONGEST_PAUSE_SECONDS
    limit_bytes: int = limits.MESSAGE_BYTES  # most that one answer may have
    kinds: tuple[str, ...] = ()  # content types that are taken; empty for all


LISTING = Policy(deadline_seconds=limits.LISTING_SECONDS, limit_bytes=limits.LISTING_BYTES)
DOWNLOAD = Policy(deadline_seconds=limits.FILE_SECONDS, limit_bytes=limits.FILE_BYTES)
MESSAGE = Policy(deadline_seconds=limits.MESSAGE_SECONDS, first_pause_seconds=2.0)


class AgainError(Exception):
    """An attempt failed in a way that may be gone at the next one."""

    def __init__(self, why: str, *, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after  # seconds; None where the server does not say when to ask again


def persistently(
    act: Callable[[], T],
    policy: Policy,
    *,
    clock: Clock | None = None,
    passing: Callable[[BaseException], bool] | None = None,
    say: Callable[[str, float], None] = lambda _why, _seconds: None,
) -> T:
    """Calls a function until it returns, and raises its last error where attempts or time are used up.

    ``passing`` tells whether an error may be gone at the next attempt, by default ``may_pass``. ``say`` is told before
    each pause why, and for how many seconds.
    """
    clock = clock or CLOCK
    started = clock.monotonic()

    def pause(state: tenacity.RetryCallState) -> float:
        growing = policy.first_pause_seconds * 2 ** min(state.attempt_number - 1, 30)
        seconds = _retry_after(_error(state)) or min(growing, policy.longest_pause_seconds)
        return seconds * (1 + JITTER * clock.chance())

    def spent(state: tenacity.RetryCallState) -> bool:
        late = clock.monotonic() - started + state.upcoming_sleep > policy.deadline_seconds
        return late or state.attempt_number == policy.attempts

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(passing or may_pass),
        wait=pause,
        stop=spent,
        sleep=clock.sleep,
        before_sleep=lambda state: say(str(_error(state)), state.upcoming_sleep),
        reraise=True,
    )(act)


def may_pass(error: BaseException) -> bool:
    """Whether an error may be gone at the next attempt: a broken connection, a time-out, a server in trouble."""
    match error:
        case requests.HTTPError(response=requests.Response(status_code=status)):
            return status >= SERVER_ERROR or status in BUSY
        case WrongAnswerError():
            return False
    passing = requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError
    return isinstance(error, (AgainError, *passing, urllib3.exceptions.HTTPError))


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which has a number or a date (RFC 9110, 10.2.3)."""
    try:
        return urllib3.Retry().parse_retry_after(retry_after) if retry_after else None
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def index_url(settings: Settings) -> str:
    """The package index that applies; may hold credentials, so it is never to be shown."""
    named = (settings.index.url, *(os.environ.get(name) for name in INDEX_VARIABLES))
    return UV_NAME.sub("", next((url for url in named if url), PYPI_SIMPLE_ENDPOINT))


def index_session(settings: Settings, policy: Policy) -> requests.Session:
    """A session for the package index that applies and the files that it links to; begins the policy's deadline."""
    home, reader = without_credentials(index_url(settings))
    return session(policy, home=home, reader=reader)


def session(policy: Policy, *, home: str = "", reader: tuple[str, str] | None = None) -> requests.Session:
    """A session that keeps to a policy, and begins its deadline.

    Only the server of ``home`` gets the reader's password; without a reader the user's netrc file is asked.
    """
    opened = requests.Session()
    if reader:
        opened.auth = _AtHome(home, reader)
    opened.verify = next((path for name in CERTIFICATE_VARIABLES if (path := os.environ.get(name))), True)
    return limited(opened, policy)


def limited(opened: requests.Session, policy: Policy) -> requests.Session:
    """The session, now keeping to a policy: its own retries are switched off; begins the deadline."""
    adapter = LimitedAdapter(
        deadline_seconds=policy.deadline_seconds, limit_bytes=policy.limit_bytes, kinds=policy.kinds
    )
    for scheme in ("http://", "https://"):
        opened.mount(scheme, adapter)
    return opened


def reason(error: Exception, *, timeout_seconds: float) -> str:
    """Why an HTTP request failed, in a few words; never holds the URL, which may hold credentials."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"it answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, SlowAnswerError | WrongAnswerError):
        return str(error)
    why = next((text for kind, text in REASONS if isinstance(error, kind)), "the answer cannot be read ({kind})")
    return why.format(seconds=timeout_seconds, kind=type(error).__name__)


def unreachable(
    what: str, error: Exception, *, timeout_seconds: float, remedy: str = INDEX_REMEDY
) -> IndexUnreachableError:
    """The error for a failed HTTP request."""
    return IndexUnreachableError(what, why=reason(error, timeout_seconds=timeout_seconds), remedy=remedy)


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _retry_after(error: BaseException | None) -> float | None:
    match error:
        case AgainError():
            return error.retry_after
        case requests.HTTPError(response=requests.Response() as response):
            return seconds_of(response.headers.get("Retry-After"))
    return None


class _AtHome(AuthBase):
    """Gives an index its password, and other servers that it keeps files on only what the user's netrc has for them."""

    def __init__(self, home: str, reader: tuple[str, str]) -> None:
        self._home = urlsplit(home)[:2]
        self._reader = reader

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        at_home = urlsplit(request.url or "")[:2] == self._home
        reader = self._reader if at_home else get_netrc_auth(request.url or "")
        return HTTPBasicAuth(*reader)(request) if reader else request
