"""The variants are data: what the table says is consistent, and one more entry is one more variant."""

from __future__ import annotations

from dataclasses import replace
from email.parser import HeaderParser
from fnmatch import fnmatchcase
from importlib.resources import files
from itertools import pairwise

import pytest

from vllm_wheels.core import variants as module
from vllm_wheels.core.artifacts.metadata.planning import patch_set
from vllm_wheels.core.errors import MachineError, UnknownVariantError
from vllm_wheels.core.formats.instructions import NAMES, judge, scan
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import lowest, platform_for, variant, variants
from vllm_wheels_tests.core import elf
from vllm_wheels_tests.core.patch_tree import upstream, write

SIXTH = """
[avx512fp16]
distribution = "vllm-cpu-avx512fp16"
summary = "vLLM inference engine for CPUs: build for processors with AVX-512 and FP16"
sources = ["VLLM_EXT_SRC_AVX512"]
flags = ["-mavx512f", "-mavx512fp16"]
defines = ["HALF"]
cpuinfo = ["avx512f", "avx512_fp16"]
promises = ["AVX512F", "AVX512_FP16"]
forbids = ["AVX512*", "AMX_*"]
floor = ["avx512f", "avx512_fp16"]
level = "x86-64-v4"
processors = ["Intel Sapphire Rapids (2023)"]
platforms = ["linux_x86_64"]
ceiling = ["_is_amx_tile_supported"]
"""


@pytest.fixture
def with_a_sixth(tmp_path, monkeypatch):
    """The table with one more entry."""
    table = files("vllm_wheels.core").joinpath("variants.toml").read_text("utf-8")
    (tmp_path / "variants.toml").write_text(table + SIXTH)
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    variants.cache_clear()
    yield
    variants.cache_clear()


def test_variant_for_another_platform_is_refused(with_a_sixth):
    """A variant is built only where its entry says, and I am told where that is and what can be built here."""
    foreign = replace(variant("avx512fp16"), platforms=("linux_aarch64",))
    with pytest.raises(MachineError, match="avx512fp16 cannot be built on this machine") as caught:
        platform_for(foreign)
    assert caught.value.why == "it is linux_x86_64, and the variant is for linux_aarch64"
    assert caught.value.remedy.startswith("build baseline, avx512, ")
    assert caught.value.remedy.endswith(" here, or avx512fp16 on linux_aarch64")


@pytest.mark.parametrize("name", list(variants()))
def test_features_are_those_that_the_scanner_counts(name):
    """A promise or a prohibition that no instruction can meet would mean nothing."""
    each = variant(name)
    assert set(each.promises) <= set(NAMES.values())
    assert all(any(fnmatchcase(feature, pattern) for feature in NAMES.values()) for pattern in each.forbids)


def test_variants_go_from_the_lowest_to_the_highest():
    """The guard's advice is the last variant that fits, and a same_code variant names one before it."""
    names = list(variants())
    assert lowest().name == names[0]
    for each in variants().values():
        assert all(names.index(rule.same_code_as) < names.index(each.name) for rule in each.same_code)


def test_each_step_of_the_ladder_includes_those_below():
    """Every CPU of a variant has what the lower ones need, so that the highest that runs is never the lesser choice."""
    steps = list(variants().values())
    for lower, higher in pairwise(steps[1:]):
        for name in ("floor", "flags", "cpuinfo", "promises"):
            assert set(getattr(lower, name)) <= set(getattr(higher, name)), (lower.name, higher.name, name)


def test_unknown_variant_is_answered_with_the_nearest(with_a_sixth):
    """A typing error is answered with what was meant, from the table."""
    with pytest.raises(UnknownVariantError, match="avx512fp61") as caught:
        variant("avx512fp61")
    assert caught.value.why == "did you mean avx512fp16?"


def test_one_more_entry_is_one_more_variant(with_a_sixth, tmp_path):
    """A sixth variant is patched, named, guarded and judged by its entry alone."""
    sixth = variant("vllm-cpu-avx512fp16")
    made = patch_set(write(tmp_path / "tree"), upstream=upstream(), variant=sixth, settings=Settings())
    assert HeaderParser().parsestr(made.metadata)["Name"] == "vllm-cpu-avx512fp16"
    cmake = made.native["cmake/cpu_extension.cmake"]
    assert "COMPILE_FLAGS ${CXX_COMPILE_FLAGS} -mavx512f -mavx512fp16\n" in cmake
    assert 'target_compile_definitions(_C PRIVATE "-DHALF")' in cmake
    assert "'floor': ('avx512f', 'avx512_fp16')" in made.overlay["vllm/_cpu_guard.py"]
    code = scan(elf.shared_library(tmp_path / "a.so", [[elf.AVX512, "vaddph %zmm0, %zmm1, %zmm2"]]))
    assert judge(code, sixth) == ()
    assert [fault.feature for fault in judge(code, variant("avx512vnni"))] == [
        "AVX512VL",
        "AVX512BW",
        "AVX512DQ",
        "AVX512_VNNI",
        "AVX512_FP16",
    ]
