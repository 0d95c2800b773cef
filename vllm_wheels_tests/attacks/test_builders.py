"""A hostile build script, run as the builders run upstream's, finds no token and gets no rights."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.builders.container import ContainerBuilder
from vllm_wheels.core.builders.image import ready_image
from vllm_wheels.core.builders.local import LocalBuilder
from vllm_wheels.core.engine.builder import PLACE, Command, Mount
from vllm_wheels.core.host.ownership import NOBODY
from vllm_wheels_tests.attacks.canary import LOOK, canary, seen

BUILD = f"{PLACE}/build"
OLD = "10"
"""Any compiler will do, for none is started."""

NO_RIGHTS = ["0000000000000000", "0000000000000000", "1"]
"""Effective and bounding set of capabilities, and that there is no way to any (proc(5))."""


@pytest.fixture
def build(tmp_path) -> Path:
    """A build folder with a hostile setup.py."""
    folder = tmp_path / "build"
    folder.mkdir()
    shutil.copy(LOOK, folder / "setup.py")
    return folder


def attack(builder, build: Path, python: str, folder: Path) -> dict:
    """What the setup.py saw and could do."""
    with canary(folder, sys.executable) as held:
        command = Command(
            argv=[python, "-I", f"{BUILD}/setup.py", *held.arguments],
            env={},
            cwd=BUILD,
            mounts=[Mount(source=build, place=BUILD, writable=True)],
        )
        finished = builder.run(command, timeout_seconds=120)
    assert finished.status == 0, finished.tail
    return seen(finished)


def assert_nothing_left(build: Path) -> None:
    """No way to become root remains, and what remains is the user's own."""
    shell = (build / "shell").stat()
    assert (shell.st_uid, build.stat().st_uid) == (os.getuid(), os.getuid())
    assert os.getuid() != 0 or not shell.st_mode & 0o6000


def test_hostile_build_script_on_this_host_finds_nothing(build, tmp_path):
    """Not in variables, processes, files, sockets; it has no capability and is not root."""
    found = attack(LocalBuilder(minimum_compiler=OLD), build, os.path.realpath(sys.executable), tmp_path)
    assert (found["found"], found["rights"]) == ([], NO_RIGHTS)
    assert found["user"] == (NOBODY if os.getuid() == 0 else os.getuid())
    assert_nothing_left(build)


def test_look_finds_the_canary_where_nothing_confines_it(build, tmp_path):
    """The look can fail: unguarded, it finds the token and the port."""
    found = attack(
        LocalBuilder(minimum_compiler=OLD, unguarded=True), build, os.path.realpath(sys.executable), tmp_path
    )["found"]
    assert {"/proc/PID/environ", str(tmp_path / "tokens"), "a port on loopback"} <= set(found)


@pytest.mark.container
def test_hostile_build_script_in_a_container_finds_nothing(build, tmp_path):
    """As on this host; and the root of the container cannot be written."""
    settings = configuration.load(state_folder=tmp_path / "state")
    image = ready_image("debian")
    if image is None:
        pytest.skip("the builder image is not there: vllm-wheels set-up --image debian")
    builder = ContainerBuilder(image=image, notes=settings.state_folder / "images")
    found = attack(builder, build, builder.python("3.11"), tmp_path)
    assert (found["found"], found["rights"]) == ([], NO_RIGHTS)
    assert found["user"] == (NOBODY if os.getuid() == 0 else os.getuid())
    assert_nothing_left(build)
