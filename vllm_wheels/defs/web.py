"""The web server: Dagster's own application behind the guard; ``python -m vllm_wheels.defs.web``."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host.secrets import become_unreadable, private_text, refuse_secrets
from vllm_wheels.defs.guard import SESSION, Guard
from vllm_wheels.defs.internals import web_application

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTH = 32
SESSION_FILE = "session"
"""Below DAGSTER_HOME: it outlasts the servers, as a browser's cookie does."""


def secret_of(path: Path) -> str:
    """The session's secret, made at the first call; CredentialsError where others may read the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return private_text(path, "the session file").strip()
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(secrets.token_urlsafe(LENGTH))
    return private_text(path, "the session file").strip()


def address(origin: str, path: Path) -> str:
    """What a user opens, once in each browser."""
    return f"{origin}/?{SESSION}={secret_of(path)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--session", type=Path, required=True, help="file of the session's secret; made if need be")
    parser.add_argument("--origin", action="append", default=[], help="under which browsers see it, beside loopback")
    parser.add_argument("--user-header", help="header that a proxy sets which asks who somebody is")
    given = parser.parse_args(arguments)
    become_unreadable()
    try:
        refuse_secrets("the web server")
        secret = secret_of(given.session)
    except VllmWheelsError as error:
        parser.error(f"{error.what}: {error.why}; {error.remedy}")
    own = [f"http://{name}:{given.port}" for name in ("127.0.0.1", "localhost")]
    with web_application(given.workspace) as app:
        guard = Guard(app=app, origins=(*own, *given.origin), secret=secret, user_header=given.user_header)
        uvicorn.run(guard, host=given.host, port=given.port, log_level="warning", server_header=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
