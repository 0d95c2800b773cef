"""One policy for all of HTTP: what is tried again, when it ends, and what an answer may be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from vllm_wheels.core.errors import IndexUnreachableError
from vllm_wheels.core.host import http, limits
from vllm_wheels.core.host.commands import Download
from vllm_wheels.core.host.downloads import download
from vllm_wheels.core.host.transport import SlowAnswerError, WrongAnswerError
from vllm_wheels.core.index import releases
from vllm_wheels.core.settings import IndexSettings, Settings
from vllm_wheels_tests.core.loopback import Answer, serve
from vllm_wheels_tests.fixtures.certificate import self_signed
from vllm_wheels_tests.fixtures.serving import Handler, serving

ONCE = http.Policy(deadline_seconds=30.0, attempts=1)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@contextmanager
def dripping(*, head: bytes, body: bytes, certificate: Path | None = None) -> Iterator[str]:
    """A server that sends its head at once where it has one, and then a byte every tenth of a second."""

    class Drip(Handler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.write(head)
                for byte in body:
                    time.sleep(0.1)
                    self.wfile.write(bytes([byte]))

    with serving(Drip, certificate=certificate) as url:
        yield url


def body_of(opened: requests.Session, url: str, timeout: float = 5.0) -> bytes:
    return opened.get(url, timeout=timeout).content


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
ENDLESS = {
    "status line": (b"", b"HTTP/1.1 200 OK" + b" " * 1000),
    "header": (b"HTTP/1.1 200 OK\r\n", b"X-Endless: " + b"x" * 1000),
    "body": (HEAD, b"x" * 1000),
    "body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000),
    "length of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 1000),
    "compressed body": (
        HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"),
        b"\x1f\x8b\x08" + b"\0" * 1000,
    ),
}


@pytest.mark.parametrize(("head", "body"), ENDLESS.values(), ids=ENDLESS)
def test_answer_that_drips_ends_by_the_deadline(head, body):
    """A byte now and then keeps no command waiting, wherever in the answer it comes."""
    started = time.monotonic()
    with (
        dripping(head=head, body=body) as url,
        http.session(replace(ONCE, deadline_seconds=1.0)) as opened,
        pytest.raises(requests.Timeout),
    ):
        body_of(opened, url)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("place", ["header", "body"])
def test_answer_that_drips_by_tls_ends_by_the_deadline(tmp_path, monkeypatch, place):
    """An encrypted connection can be given up in the middle as well."""
    certificate = self_signed(tmp_path / "loopback.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    head, body = ENDLESS[place]
    started = time.monotonic()
    with (
        dripping(head=head, body=body, certificate=certificate) as url,
        http.session(replace(ONCE, deadline_seconds=1.0)) as opened,
        pytest.raises(requests.Timeout),
    ):
        body_of(opened, url)
    assert time.monotonic() - started < 20


def test_slow_body_ends_before_the_deadline(monkeypatch):
    """Below the least speed an answer is given up, and the message says so."""
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.3)
    slow = pytest.raises(SlowAnswerError, match="less than 1000 bytes a second")
    with dripping(head=HEAD, body=b"x" * 1000) as url, http.session(ONCE) as opened, slow:
        body_of(opened, url)


def test_dripping_listing_and_archive_end_in_bounded_time(tmp_path, monkeypatch):
    """Neither a page of an index nor an archive holds a build, and both are errors of the index."""
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.3)
    with dripping(head=HEAD, body=b"x" * 1000) as url:
        settings = Settings(index=IndexSettings(url=f"{url}/simple/", timeout_seconds=5))
        started = time.monotonic()
        with pytest.raises(IndexUnreachableError) as listing:
            releases.releases(settings)
        with pytest.raises(IndexUnreachableError) as archive:
            download(Download(url=f"{url}/vllm.tar.gz"), tmp_path / "vllm.tar.gz", settings=settings)
    assert time.monotonic() - started < 60
    assert "bytes a second" in listing.value.why
    assert "bytes a second" in archive.value.why
    assert list(tmp_path.iterdir()) == []


def test_listing_is_tried_again_like_an_archive(server):
    """An index that fails twice and then answers is no reason to stop."""
    url = server.index(server.file("vllm-0.32.0.tar.gz", b"32"))
    server.answers["/simple/vllm/"].fails_first = 2
    assert [each.version for each in releases.releases(Settings(index=IndexSettings(url=url)))] == ["0.32.0"]


@pytest.mark.parametrize(("status", "times"), [(503, 3), (429, 3), (408, 3), (404, 1), (403, 1)])
def test_only_what_may_pass_is_tried_again(server, status, times):
    """A server in trouble is asked three times; one that says no is asked once."""
    server.answers["/x"] = Answer(status=status)
    with http.session(http.LISTING) as opened, pytest.raises(requests.HTTPError):
        http.persistently(lambda: opened.get(f"{server.url}/x", timeout=5).raise_for_status(), http.LISTING)
    assert len(server.asked) == times


def failing(policy: http.Policy, *, retry_after: float | None = None, chance: float = 0.0) -> list[float]:
    """The pauses after attempts that all fail."""
    slept: list[float] = []
    clock = http.Clock(monotonic=lambda: sum(slept), sleep=slept.append, chance=lambda: chance)

    def act() -> None:
        message = "on purpose"
        raise http.AgainError(message, retry_after=retry_after)

    with pytest.raises(http.AgainError, match="on purpose"):
        http.persistently(act, policy, clock=clock)
    return slept


@pytest.mark.parametrize("asked", ["\u00b2", "soon", "-5", "9" * 400, "Fri, 31 Dec 99999999999999 23:59:59 GMT", ""])
def test_time_that_makes_no_sense_is_none(asked):
    """A server that names no time at which to come back is asked again as the policy has it."""
    found = http.seconds_of(asked)
    assert found is None or found >= 0


def test_pauses_grow_up_to_the_longest_and_end_at_the_deadline():
    """Each pause is twice the one before, none exceeds the longest, and none outlasts the deadline."""
    policy = http.Policy(deadline_seconds=30.0, attempts=None, first_pause_seconds=2.0, longest_pause_seconds=10.0)
    assert failing(policy) == [2.0, 4.0, 8.0, 10.0]


def test_pauses_are_stretched_at_random():
    """Many builds that failed together do not come back together."""
    assert failing(http.MESSAGE, chance=1.0) == [2.5, 5.0]


def test_server_that_names_a_time_is_left_alone_until_then():
    """Retry-After comes before our own pause; one beyond the deadline ends the attempts at once."""
    assert failing(http.MESSAGE, retry_after=7.0) == [7.0, 7.0]
    assert failing(http.MESSAGE, retry_after=3600.0) == []


def test_answer_that_is_too_large_is_broken_off(server):
    """What a server sends beyond the limit is not taken, and not asked for again."""
    server.answers["/x"] = Answer(b"x" * 5000)
    policy = replace(http.LISTING, limit_bytes=1000)
    with http.session(policy) as opened, pytest.raises(WrongAnswerError, match="more than 1000 bytes"):
        http.persistently(lambda: body_of(opened, f"{server.url}/x"), policy)
    assert len(server.asked) == 1


def test_answer_of_another_kind_is_refused_where_one_is_asked_for(server):
    """Where a page is wanted, a picture is not read."""
    server.answers["/x"] = Answer(b"x", kind="image/png")
    wrong = pytest.raises(WrongAnswerError, match="image/png, not text/html")
    with http.session(replace(ONCE, kinds=("text/html",))) as opened, wrong:
        body_of(opened, f"{server.url}/x")
