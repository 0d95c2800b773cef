"""The ninja of machines that share a compiler cache: the same statements, in an order of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_wheels.core.builders.any_order import APART, reordered
from vllm_wheels.core.builders.compiler_cache import PROGRAMS, put_any_order
from vllm_wheels.core.settings import BuilderSettings

FILES = [f"f{number}" for number in range(40)]
COMPILES = [f"# object of {name}\nbuild {name}.o: CXX_COMPILER__t_unscanned_Release {name}" for name in FILES]
PLAN = APART.join(
    [
        "rule CXX_COMPILER__t_unscanned_Release\n  command = cat $in > $out && echo $in >> order",
        *COMPILES,
        f"build all: phony {' '.join(f'{name}.o' for name in FILES)}\ndefault all\n",
    ]
)
SHARED = "redis://127.0.0.1:6379"


def test_only_compiles_change_places():
    """Rules, links and defaults stay where CMake put them, and nothing is lost."""
    made = reordered(PLAN).split(APART)
    assert made[0] == PLAN.split(APART)[0]
    assert made[-1] == PLAN.split(APART)[-1]
    assert made[1:-1] != COMPILES
    assert sorted(made[1:-1]) == sorted(COMPILES)


def test_ninja_compiles_in_another_order(tmp_path):
    """What CMake calls is the real ninja, which compiles everything once, and the plan is as old as before."""
    if shutil.which("ninja") is None and not (Path(sys.executable).parent / "ninja").exists():
        pytest.skip("there is no ninja")
    put_any_order(BuilderSettings(cache_remote=SHARED), tmp_path, sys.executable)
    for name in FILES:
        (tmp_path / name).touch()
    plan = tmp_path / "build.ninja"
    plan.write_text(PLAN, "utf-8")
    os.utime(plan, (1, 1))
    path = os.pathsep.join([str(tmp_path / PROGRAMS), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    subprocess.run(["ninja", "-j1"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    order = (tmp_path / "order").read_text("utf-8").split()
    assert order != FILES
    assert sorted(order) == sorted(FILES)
    assert plan.stat().st_mtime == 1


def test_machine_that_shares_nothing_calls_ninja_itself(tmp_path):
    """Nothing stands before ninja without a shared cache."""
    put_any_order(BuilderSettings(), tmp_path, sys.executable)
    assert not list(tmp_path.iterdir())


def test_link_that_a_build_left_is_not_followed(tmp_path):
    """What foreign code made in the build folder leads this program nowhere else."""
    outside, build = tmp_path / "outside", tmp_path / "build"
    outside.mkdir()
    build.mkdir()
    (build / PROGRAMS).symlink_to(outside)
    put_any_order(BuilderSettings(cache_remote=SHARED), build, sys.executable)
    assert not list(outside.iterdir())
    assert (build / PROGRAMS / "ninja").is_file()
