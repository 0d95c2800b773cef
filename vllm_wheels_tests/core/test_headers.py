"""Headers of torch are read once for all kernels, and what comes out is the same."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from vllm_wheels.core.engine.rule import Rule
from vllm_wheels.core.engine.store import Artifact
from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.patches import applying, native_headers
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.making import with_other_code
from vllm_wheels_tests.core.patch_tree import wanted, write
from vllm_wheels_tests.fixtures.building import PYTHON

KERNELS = [f"csrc/cpu/{name}.cpp" for name in ("a", "b", "c", "d", "e")]


def tree_with(root: Path, texts: Mapping[str, str]) -> Path:
    for path, text in texts.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return write(root)


@pytest.mark.parametrize(
    "include",
    ["#include <torch/all.h>", '#include "cpu/types.hpp"', '  # include "../cpu/types.hpp"', '#include "near.hpp"'],
)
def test_kernels_that_include_the_header_share_one_reading_of_it(tmp_path, include):
    """Whether a kernel includes torch's header itself or through headers of the release, it is not read anew."""
    texts = {
        **dict.fromkeys(KERNELS, f"#include <cstddef>\n{include}\n"),
        # Headers that include each other under ever longer names.
        "csrc/cpu/near.hpp": '#include "../cpu/types.hpp"\n',
        "csrc/cpu/types.hpp": '#include "../cpu/near.hpp"\n#include <torch/all.h>\n',
        "csrc/cpu/lone.cpp": "#include <ATen/ATen.h>\n",
    }
    text = patched(tree_with(tmp_path, texts), wanted()).text(CMAKE)
    named = text[text.index("list(REMOVE_ITEM _ALONE") :]
    assert [path for path in KERNELS if f'"{path}"' not in named] == []
    assert "lone.cpp" not in named
    assert text.endswith("target_precompile_headers(_C PRIVATE <torch/all.h>)\n")


def test_release_with_few_such_kernels_compiles_no_header(tmp_path):
    """For four kernels, compiling the header would take longer than it saves."""
    texts = dict.fromkeys(KERNELS[:4], "#include <torch/all.h>\n")
    assert "precompile" not in patched(tree_with(tmp_path, texts), wanted()).text(CMAKE)


def test_whole_build_compiles_no_header(tmp_path):
    """A build with all of upstream's extensions stays as upstream wrote it."""
    texts = dict.fromkeys(KERNELS, "#include <torch/all.h>\n")
    whole = replace(wanted("baseline"), whole=True)
    assert "precompile" not in patched(tree_with(tmp_path, texts), whole).text(CMAKE)


def compiled(release: str, rules: Mapping[str, Rule] | None = None) -> tuple[Artifact, dict[str, bytes]]:
    """The compiled artifact of avx512 and its extensions."""
    artifact = build_graph(load(), say=print, own_rules=rules).ensure(
        "compiled", Target(release=release, python=PYTHON, variant="avx512")
    )
    with zipfile.ZipFile(wheel_in(artifact.folder / "raw")) as wheel:
        return artifact, {name: wheel.read(name) for name in wheel.namelist() if name.endswith(".so")}


NAMED = '\nextern "C" const char* source_of_this() { return __FILE__; }\n'


def name_source(tree: Tree, _: Wanted) -> None:
    tree.write("csrc/cpu/utils.cpp", tree.text("csrc/cpu/utils.cpp") + NAMED)


@pytest.mark.container
def test_extensions_are_the_same_with_every_compiler_cache_and_with_none(settings_environment, monkeypatch):
    """Whoever builds a wheel again without my cache gets my wheel: caches change no path that objects hold."""
    monkeypatch.setattr(applying, "PATCHES", (*applying.PATCHES, Patch(name="named", apply=name_source)))
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__KIND", "container")
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__IMAGE", "debian")
    made = {}
    for cache in ("ccache", "sccache", "none"):
        monkeypatch.setenv("VLLM_WHEELS_BUILDER__COMPILER_CACHE", cache)
        artifact, made[cache] = compiled("0.32.0")
        shutil.rmtree(artifact.folder)
    assert made["ccache"] == made["none"] == made["sccache"]
    assert any(b"/vllm-wheels/build/source/csrc/cpu/utils.cpp" in content for content in made["none"].values())


@pytest.mark.real
@pytest.mark.parametrize("release", ["0.32.0", "0.16.0"])
def test_kernels_are_the_same_without_the_compiled_header(built, monkeypatch, release):
    """Reading the header once makes no other wheel, byte by byte."""
    with_header = compiled(release)
    log = (with_header[0].folder / "build.log").read_text("utf-8")
    monkeypatch.setattr(applying, "PATCHES", tuple(one for one in applying.PATCHES if one is not native_headers.PATCH))
    without = compiled(release, with_other_code("patched"))
    assert without[1] == with_header[1]
    assert without[0].key != with_header[0].key
    assert "cmake_pch.hxx.gch" in log
    assert "cmake_pch.hxx.gch" not in (without[0].folder / "build.log").read_text("utf-8")


@pytest.mark.skipif(shutil.which("ccache") is None, reason="needs ccache")
def test_cache_keeps_what_reads_a_compiled_header(built):
    """When the store is lost, the next build of the same source compiles no file."""
    artifact, extensions = compiled("0.32.0")
    shutil.rmtree(artifact.folder)
    again, same = compiled("0.32.0")
    steps = (again.folder / "build.log").read_text("utf-8").count("Building CXX object ")
    assert again.details["ccache"] == {"hits": steps, "misses": 0}
    assert same == extensions
