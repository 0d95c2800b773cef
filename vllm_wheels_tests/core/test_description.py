"""A release is described by its source, so that a person sees what changed before a patch meets it."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from vllm_wheels.core.errors import SourceError
from vllm_wheels.core.patches.description import describe, differences, lines
from vllm_wheels.core.patches.upstream import CMAKE, CPU, PYPROJECT, SETUP

TREES = Path(__file__).parents[1] / "fixtures" / "trees"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the miniature of the unified family."""
    return shutil.copytree(TREES / "unified", tmp_path / "tree")


def test_description_holds_what_the_patches_rely_on(tree):
    """Licence, torch, flags, extensions with their lists, lookups, questions and extras are all there."""
    found = describe(tree, release="0.32.0")
    assert found.licence == "Apache-2.0 (LICENSE has the known text of Apache-2.0)"
    assert found.torch[0].startswith("exact in requirements/cpu.txt: torch==2.13.0+cpu")
    assert "-mavx512f" in found.flags["CXX_COMPILE_FLAGS_AVX512"]
    assert "SOURCES ${VLLM_EXT_SRC_AVX2}" in found.extensions["_C_AVX2"]
    assert "csrc/cpu/shm.cpp" in found.sources["VLLM_EXT_SRC_AVX512"]
    assert found.lookups["vllm/entrypoints/cli/main.py"] == ("importlib.metadata.version(vllm)",)
    assert "torch.cpu._is_amx_tile_supported" in found.questions
    assert "vllm/platforms/cpu.py" in found.imports["_C_AVX512"]
    assert found.extras["tensorizer"] == ("tensorizer==2.10.1",)


def test_host_detected_release_is_described_as_well(tmp_path):
    """The older family has one extension, and its flags are in one list."""
    found = describe(TREES / "host_detected", release="0.16.0")
    assert found.extensions == {"_C": ()}
    assert "-mavx512bf16" in found.flags["CXX_COMPILE_FLAGS"]


@pytest.mark.parametrize(
    ("path", "old", "new", "part"),
    [
        (PYPROJECT, '"Apache-2.0"', '"MIT"', "licence: MIT"),
        ("LICENSE", "TERMS", "TERM", "a text that is not known"),
        (CPU, "torch==2.13.0+cpu", "torch>=2.13", "torch: range"),
        (CMAKE, '"-mavx512f"', '"-mavx512f" "-mavx512vbmi"', "-mavx512vbmi"),
        (CMAKE, '"csrc/cpu/shm.cpp"', '"csrc/cpu/new.cpp"', "sources: VLLM_EXT_SRC_AVX512: csrc/cpu/new.cpp"),
        (SETUP, '"vllm.spinloop"', '"vllm.fast"', "extensions: fast"),
        (SETUP, '"tensorizer==2.10.1"', '"vllm[audio]"', "extras: tensorizer: vllm[audio]"),
        ("vllm/outputs.py", "", "import importlib.metadata as m\nX = m.version(NAME)\n", "<computed>"),
        ("vllm/outputs.py", "", "import torch\nX = torch.cpu._is_new()\n", "questions: torch.cpu._is_new"),
        ("vllm/outputs.py", "", "import vllm._C_NEW\n", "imports: _C_NEW: vllm/outputs.py"),
    ],
)
def test_every_change_that_a_patch_might_meet_is_a_difference(tree, path, old, new, part):
    """The command diff names each of them, and nothing that did not change."""
    before = describe(tree, release="0.32.0")
    text = (tree / path).read_text()
    assert old in text
    (tree / path).write_text(text.replace(old, new) if old else new)
    found = list(differences(before, describe(tree, release="0.33.0")))
    assert any(part in line and line.startswith("+") for line in found)
    assert len(found) < 12
    assert not list(differences(before, before))


def test_every_part_is_printed(tree):
    """No part of the description is only in the JSON."""
    found = describe(tree, release="0.32.0")
    printed = {line.partition(":")[0] for line in lines(found)}
    assert printed == {name for name, value in asdict(found).items() if value}


def test_tree_that_cannot_be_read_is_refused(tree):
    """What no build would understand is not described half."""
    (tree / SETUP).write_text("ext_modules = [\n")
    with pytest.raises(SourceError, match=r"setup\.py"):
        describe(tree, release="0.32.0")
