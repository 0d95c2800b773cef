"""A web server on loopback that answers what a test says, and the smallest package index on top of it."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

JSON = "application/vnd.pypi.simple.v1+json"


@dataclass
class Answer:
    """What the server answers to one path.

    Attributes:
        body: bytes.
        status: of HTTP.
        kind: content type.
        claims: the length it claims, where that is to be a lie.
        fails_first: so many times it answers 503 before.
        pause_seconds: how long it is silent before.
    """

    body: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    claims: int | None = None
    fails_first: int = 0
    pause_seconds: float = 0.0


@dataclass
class Server:
    """A running server.

    Attributes:
        url: its root, without a final slash.
        answers: by path; others are 404.
        asked: paths in the order they were asked for, with the credentials that came along.
    """

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def index(self, *files: Mapping[str, object]) -> str:
        """Makes the server an index that knows these files of vLLM; gives its address."""
        page = {"meta": {"api-version": "1.1"}, "name": "vllm", "versions": [], "files": list(files)}
        self.answers["/simple/vllm/"] = Answer(json.dumps(page).encode(), kind=JSON)
        return f"{self.url}/simple/"

    def file(self, name: str, body: bytes, **extra: object) -> dict[str, object]:
        """Serves a file and gives what the index says about it."""
        self.answers[f"/files/{name}"] = Answer(body)
        hashes = {"sha256": hashlib.sha256(body).hexdigest()}
        entry = {"filename": name, "url": f"../../files/{name}", "hashes": hashes, "size": len(body), "yanked": False}
        return {**entry, "requires-python": ">=3.11", "upload-time": "2026-10-18T10:00:00Z", **extra}


@contextmanager
def serve() -> Iterator[Server]:
    """A server on a free port, stopped at the end."""
    served: list[Server] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server = served[0]
            server.asked.append((self.path, self.headers.get("Authorization")))
            answer = server.answers.get(unquote(self.path), Answer(status=404))
            status = answer.status
            time.sleep(answer.pause_seconds)
            if answer.fails_first > 0:
                answer.fails_first -= 1
                status = 503
            self.send_response(status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body) if answer.claims is None else answer.claims))
            self.end_headers()
            with suppress(ConnectionError):  # The client may have given up.
                self.wfile.write(answer.body)

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.append(Server(url=f"http://127.0.0.1:{http.server_port}"))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served[0]
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
