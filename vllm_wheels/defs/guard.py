"""Stands before Dagster's web server, which executes what any page asks: own origin, session secret, own host."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

READING = frozenset({"GET", "HEAD"})
SESSION = "session"
"""Parameter of the address that `vllm-wheels ui` prints."""

QUERIES = "/graphql"
"""Dagster's interface, which executes mutations by GET as well as by POST."""

POLICY_VIOLATION = 1008
"""Why a websocket is closed (RFC 6455, 7.4.1)."""

NO_SESSION = "This browser has no session here: open the address that `vllm-wheels ui` printed.\n"


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Lets through what comes from the UI's own pages, in a browser that was given the session.

    A program shows the secret as ``Authorization: Bearer ...``, which no page of another origin can do without being
    asked first, and a question of another origin (OPTIONS) is refused.

    Attributes:
        app: what is guarded.
        origins: of the UI, such as ``http://127.0.0.1:3000``; the hosts in them are those that may be asked for.
        secret: of the session.
        user_header: set by a proxy in front that asks for a password or an OIDC log-in; it stands for the session.
    """

    app: ASGIApp
    origins: Collection[str]
    secret: str = field(repr=False)
    user_header: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer = self._answer(scope, headers)
        if answer is None:
            await self.app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            await answer(scope, receive, send)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to what is not passed on."""
        if headers.get("host") not in {origin.partition("://")[2] for origin in self.origins}:
            return _refused("this is not the name of this server")
        origin, method = headers.get("origin"), scope.get("method", "GET")
        if origin is not None and origin not in self.origins:
            return _refused("the request comes from another site")
        given = QueryParams(scope["query_string"])
        if scope["type"] == "http" and method == "GET" and self._is_secret(given.get(SESSION, "")):
            return self._opened(scope, headers, given)
        shown = self._shows_secret(headers)
        if not (shown or self._has_session(headers)):
            return PlainTextResponse(NO_SESSION, status_code=401)
        if scope["type"] == "http" and method in READING:
            # Its page to try queries is only read; what that sends comes by POST.
            is_query = scope["path"].rstrip("/") == QUERIES and "text/html" not in headers.get("accept", "")
            return _refused("queries come by POST", status=405) if is_query else None
        return None if origin is not None or shown else _refused("the request does not say which page it comes from")

    def _opened(self, scope: Scope, headers: Headers, given: QueryParams) -> Response:
        rest = urlencode([(name, value) for name, value in given.multi_items() if name != SESSION])
        # Not what was asked for as it stands: two slashes at its beginning would name another server.
        answer = RedirectResponse("/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""), status_code=303)
        answer.set_cookie(self._cookie(headers), self.secret, httponly=True, samesite="lax")
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    def _has_session(self, headers: Headers) -> bool:
        if self.user_header and headers.get(self.user_header):
            return True
        found = SimpleCookie(headers.get("cookie", "")).get(self._cookie(headers))
        return found is not None and self._is_secret(found.value)

    def _shows_secret(self, headers: Headers) -> bool:
        kind, _, value = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self._is_secret(value)

    def _is_secret(self, value: str) -> bool:
        return secrets.compare_digest(value.encode(), self.secret.encode())

    def _cookie(self, headers: Headers) -> str:
        # All ports of a host share its cookies.
        return f"vllm_wheels_{headers['host'].rpartition(':')[2] or 'session'}".replace(".", "_")


def _refused(why: str, *, status: int = 403) -> Response:
    return PlainTextResponse(f"refused: {why}\n", status_code=status)


def _unframed(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            # Nobody else's page shows ours with its own buttons over it.
            MutableHeaders(scope=message)["X-Frame-Options"] = "DENY"
        await send(message)

    return sent
