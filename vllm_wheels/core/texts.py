"""URLs as they may be shown: without the credentials that the address of an index or a repository can hold."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")


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
