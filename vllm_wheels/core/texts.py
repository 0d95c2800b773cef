"""Texts as they may be shown: URLs without credentials, and what others wrote without what a terminal acts on."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

CONTROLS = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ud800-\\udfff]"
)
"""Characters that a terminal or a page acts on rather than shows: control characters but for tab and line feed, what
changes the direction of writing or has no width (UAX #9), and halves of a pair."""

LINE_CHARACTERS, TEXT_CHARACTERS = 2000, 100_000
"""Most of a line, and of a text of several lines, that is shown."""

USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")


def shown(text: str, limit: int = TEXT_CHARACTERS) -> str:
    """The text as a terminal or a page may have it, whoever wrote it: control characters visible, and cut.

    A name in a wheel, an answer of an index or the output of a tool could otherwise clear a screen, hide a verdict or
    fill a disk.
    """
    cut = text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} characters more)"
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), cut)


def shown_line(text: str, limit: int = LINE_CHARACTERS) -> str:
    """The text as ``shown``, in one line."""
    return shown(" ".join(text.split()), limit)


def redacted(text: str) -> str:
    """The text with user and password of every URL in it left out."""
    return USERINFO.sub("", text)


def without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL split into itself without credentials, and user and password if it held any."""
    parts = urlsplit(url)
    userinfo, separator, host = parts.netloc.rpartition("@")
    if not separator:
        return url, None
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password))
