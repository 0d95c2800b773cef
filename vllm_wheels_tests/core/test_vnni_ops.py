"""The VNNI kernels of the real wheel compute what float64 does, whatever oneDNN may use of the processor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import tokens
from benchmarks.patch_table import cache_folder
from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant
from vllm_wheels.core.verify.runs.processor import lacking
from vllm_wheels.core.verify.test_run import HERE, PROGRAMS, TestRun, sandboxed

NAME = "avx512vnni"
CHECK = Path(tokens.__file__).with_name("vnni_ops.py")
ALL = "300 products, 0 too far off"
ISAS = ["AVX512_CORE_VNNI", "DEFAULT"]
"""Of ``ONEDNN_MAX_CPU_ISA``: no more than the variant's own level, and all that the processor has."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> TestRun:
    """An environment with the wheel of 0.32.0; it is compiled once, into the cache of the tests."""
    if missing := lacking(variant(NAME).floor):
        pytest.skip(f"this CPU lacks {', '.join(missing)}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_WHEELS_STATE_FOLDER", str(cache_folder() / "state"))
        patch.setenv("VLLM_WHEELS_SUBSTITUTES", "allow")
        builds = build_graph(load(), say=print)
        built = builds.ensure("wheel", Target(release="0.32.0", python=tokens.PYTHON, variant=NAME))
        folder = tmp_path_factory.mktemp("environments") / NAME
        torch_env = builds.run_cache.artifacts["torch_env", "0.32.0", tokens.PYTHON]
        test_run = tokens.prepared(wheel_in(built.folder), folder, unavailable=tuple(torch_env.facts["left_out"]))
    shutil.copy(CHECK, test_run.folder / "probes")
    return test_run


@pytest.mark.whole
@pytest.mark.parametrize("isa", ISAS)
def test_kernels_of_the_real_wheel_agree_with_float64(environment, isa):
    """Products and experts of 1 to 257 rows, with all groups, zero points and biases, are as near as they may be."""
    program = (f"{PROGRAMS}/python", f"{HERE}/probes/{CHECK.name}", "check")
    finished = environment.start(sandboxed(*program, ONEDNN_MAX_CPU_ISA=isa))
    assert (finished.status, finished.output.splitlines()[-1]) == (0, ALL), finished.output


@pytest.mark.whole
def test_broken_kernel_is_told_from_a_right_one(environment):
    """A check that finds nothing wrong with scales that are a little off would say nothing of the kernels."""
    text = (environment.folder / "probes" / CHECK.name).read_text("utf-8")
    spoiled = text.replace("return cls(tuple(layer), ", "layer[2].mul_(1.03)\n        return cls(tuple(layer), ")
    assert spoiled != text
    (environment.folder / "probes" / "spoiled.py").write_text(spoiled, "utf-8")
    finished = environment.start(sandboxed(f"{PROGRAMS}/python", f"{HERE}/probes/spoiled.py", "check"))
    assert finished.status == 1
    assert "int4 M=257" in finished.output
    assert "int8" not in finished.output
