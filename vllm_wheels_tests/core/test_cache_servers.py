"""Caches that machines share, and distcc: with real servers on loopback, over builds of the miniature."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vllm_wheels.core.builders.compiler_cache import free_port
from vllm_wheels.core.engine.store import Artifact
from vllm_wheels.core.errors import MachineError
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.fixtures.building import PYTHON
from vllm_wheels_tests.fixtures.servers import KEYS, program, redis, running, s3

pytestmark = pytest.mark.servers

TARGET = Target(release="0.32.0", python=PYTHON, variant="baseline")


class Shelf(BaseHTTPRequestHandler):
    """Keeps what is PUT, as a web server in front of a disk does."""

    kept: dict[str, bytes] = {}  # noqa: RUF012 - one shelf for all requests

    def do_PUT(self) -> None:
        self.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201)

    def do_GET(self) -> None:
        found = self.kept.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    do_HEAD = do_GET  # noqa: N815 - the name is the protocol's

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


@contextmanager
def web(_folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/cache"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def compiled(settings_environment, tmp_path, monkeypatch) -> Callable[..., Artifact]:
    """Compiles the baseline on one of several machines, which share nothing but what the settings name."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)

    def build(machine: str, said: list[str] | None = None, **builder: str) -> Artifact:
        monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(tmp_path / machine))
        for name, value in builder.items():
            monkeypatch.setenv(f"VLLM_WHEELS_BUILDER__{name.upper()}", value)
        return build_graph(load(), say=(said if said is not None else []).append).ensure("compiled", TARGET)

    return build


@pytest.mark.parametrize(
    ("tool", "storage"),
    [("ccache", redis), ("ccache", web), ("sccache", redis), ("sccache", s3)],
    ids=["ccache-redis", "ccache-http", "sccache-redis", "sccache-s3"],
)
def test_second_machine_takes_what_the_first_compiled(compiled, tmp_path, tool, storage):
    """With a shared storage, a machine that never compiled anything compiles next to nothing."""
    with storage(tmp_path) as remote:
        first = compiled("one", compiler_cache=tool, cache_remote=remote).details["ccache"]
        second = compiled("two", compiler_cache=tool, cache_remote=remote).details["ccache"]
    asked = first["hits"] + first["misses"]
    assert first["misses"] > 0
    assert second == {"hits": asked, "misses": 0}


def test_sccache_without_storage_uses_the_state_folder(compiled, tmp_path):
    """Without a storage, sccache keeps its results below the state folder, as ccache does."""
    assert compiled("one", compiler_cache="sccache").details["ccache"]["misses"] > 0
    assert any(path.is_file() for path in (tmp_path / "one" / "sccache").rglob("*"))


def test_storage_that_does_not_answer_is_an_error_of_sccache(compiled):
    """A wrong address is told before anything is compiled, not after hours without a cache."""
    with pytest.raises(MachineError) as caught:
        compiled("one", compiler_cache="sccache", cache_remote=f"redis://127.0.0.1:{free_port()}")
    assert "sccache does not start" in caught.value.what
    assert "builder.cache_remote" in caught.value.remedy


def test_storage_that_does_not_answer_leaves_ccache_working(compiled):
    """A build with ccache goes on without its storage, as it is made to; the build is only slower."""
    found = compiled("one", compiler_cache="ccache", cache_remote=f"redis://127.0.0.1:{free_port()}")
    assert found.details["ccache"]["misses"] > 0


def test_other_hosts_compile_what_the_cache_lacks(compiled, tmp_path):
    """With distcc, compilers run where builder.distcc_hosts says."""
    program("distcc", "distcc")
    port, log = free_port(), tmp_path / "distccd.log"
    server = ["--no-detach", "--daemon", "--allow", "127.0.0.1", "--listen", "127.0.0.1", "--port", str(port)]
    with running(program("distccd", "distcc"), *server, "--log-stderr", port=port, log=log):
        compiled("one", compiler_cache="ccache", distcc_hosts=f'["127.0.0.1:{port}"]')
    assert "COMPILE_OK" in log.read_text("utf-8", errors="replace")
