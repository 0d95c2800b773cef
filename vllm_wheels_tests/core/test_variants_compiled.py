"""The miniatures compiled as each variant: the machine code of the wheel is what its name and label say."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from vllm_wheels.core import variants as module
from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.formats.instructions import Scan, identical, judge, scan
from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.names import distributions
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.patches.labels import as_labelled
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant, variants
from vllm_wheels_tests.fixtures.building import PYTHON

NAMES = list(variants())
SIXTH = """
[avx512lake]
distribution = "vllm-cpu-avx512lake"
summary = "vLLM inference engine for CPUs: build for processors with AVX-512, VNNI and VBMI"
sources = ["VLLM_EXT_SRC_AVX512"]
flags = ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx512vnni"]
defines = []
cpuinfo = ["avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512_vnni"]
promises = ["AVX512F", "AVX512_VNNI"]
forbids = ["AVX512_BF16", "AMX_*"]
floor = ["avx512f", "avx512_vnni", "avx512_vbmi"]
level = "x86-64-v4"
processors = ["Intel Ice Lake (2019)"]
platforms = ["linux_x86_64"]
ceiling = ["_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_amx_fp16_supported", "_init_amx"]
"""


@dataclass
class ActionContext:
    """Makes wheels and remembers what was said on the way."""

    builds: BuildGraph
    said: list[str]

    def wheel(self, name: str, release: str) -> Path:
        """The wheel of a variant."""
        return wheel_in(self.builds.ensure("wheel", Target(release=release, python=PYTHON, variant=name)).folder)


@pytest.fixture
def context(built) -> ActionContext:
    """A builds whose store has a baseline wheel of the unified family, and all that the variants share."""
    said: list[str] = []
    return ActionContext(build_graph(load(), say=said.append), said)


def faults(wheel: Path, name: str) -> list[str]:
    summary = str(WheelFile.read(wheel).metadata["Summary"])
    judged = as_labelled(variant(name), summary, distributions(load()))
    return [str(fault) for fault in judge(scan(wheel), judged)]


@pytest.mark.real
@pytest.mark.parametrize("release", ["0.32.0", "0.16.0"])
def test_each_variant_has_the_instructions_that_it_promises(context, release):
    """Five wheels of one source, on one machine: each holds what its name says, and nothing above."""
    wheels = {name: context.wheel(name, release) for name in NAMES}
    assert {name: faults(wheel, name) for name, wheel in wheels.items()} == {name: [] for name in NAMES}
    scans: dict[str, Scan] = {name: scan(wheel) for name, wheel in wheels.items()}
    # The miniature of 0.16.0 has no VNNI kernel of its own, like the real one.
    assert identical(scans) == ((("avx512", "avx512vnni"),) if release == "0.16.0" else ())
    labelled = [line for line in context.said if "has the same machine code as avx512" in line]
    assert bool(labelled) == (release == "0.16.0")
    # All but one: baseline of 0.32.0 was in the store, and the labelled wheel is made of what avx512 compiled.
    assert len([line for line in context.said if line.startswith("compile vLLM")]) == len(NAMES) - 1


def test_whole_baseline_holds_all_extensions(context, monkeypatch):
    """The unified build has upstream's three extensions, and starts on the lowest CPU all the same."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__UNIFIED_BASELINE", "true")
    context.builds.settings = load()
    wheel = context.wheel("baseline", "0.32.0")
    names = {name for name in WheelFile.read(wheel).members if name.startswith("vllm/_C")}
    assert names == {"vllm/_C.abi3.so", "vllm/_C_AVX512.abi3.so", "vllm/_C_AVX2.abi3.so"}
    assert faults(wheel, "baseline") == []
    (lowest,) = (file for file in scan(wheel).files if "AVX2" in file.name)
    assert not [feature for feature in lowest.features if feature.startswith(("AVX512", "AMX"))]


@pytest.mark.real
def test_sixth_variant_is_built_from_its_entry_alone(context, tmp_path, monkeypatch):
    """I add an entry to variants.toml and get a compiled, guarded wheel under its name, with the code it promises."""
    table = files("vllm_wheels.core").joinpath("variants.toml").read_text("utf-8")
    (tmp_path / "variants.toml").write_text(table + SIXTH)
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    variants.cache_clear()
    try:
        wheel = context.wheel("avx512lake", "0.32.0")
        assert wheel.name.startswith("vllm_cpu_avx512lake-0.32.0-cp311-abi3-")
        assert faults(wheel, "avx512lake") == []
        with zipfile.ZipFile(wheel) as archive:
            assert b"'floor': ('avx512f', 'avx512_vnni', 'avx512_vbmi')" in archive.read("vllm/_cpu_guard.py")
    finally:
        variants.cache_clear()
