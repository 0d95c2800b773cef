"""The patch that compiles upstream's int4 and int8 kernels for VNNI without AMX, and has Python call them."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from benchmarks.patch_table import cache_folder
from vllm_wheels.core.artifacts.patched.planning import wanted_for
from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.host.archives import unpack
from vllm_wheels.core.patches import compiled, native_vnni, upstream
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.patches.cpu_guard import cpu_flags
from vllm_wheels.core.patches.labels import lacking, same_code_in
from vllm_wheels.core.patches.upstream import CMAKE
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variant
from vllm_wheels_tests.core import patch_tree, vnni_tree
from vllm_wheels_tests.core.patch_tree import wanted
from vllm_wheels_tests.core.vnni_tree import BINDINGS, EXPERTS, INT4_LINEAR, KERNELS, LINEAR, write

HEADER = f"{KERNELS}/vllm_wheels_vnni.h"
TAKE_IT = ["avx512vnni", "avx512bf16"]
OTHERS = ["baseline", "avx512", "amxbf16"]


@pytest.mark.parametrize("name", TAKE_IT)
def test_variant_with_vnni_and_without_amx_compiles_the_kernels(tmp_path, name):
    """The one extension of the wheel has upstream's int4 and int8 kernels, each marked, and our header."""
    tree = patched(write(tmp_path), wanted(name))
    listed = tree.text(CMAKE).partition("set(VLLM_EXT_SRC_AVX512")[2].partition(")")[0]
    for source in ("gemm_int4.cpp", "gemm_int8.cpp", "moe.cpp", "moe_int8.cpp"):
        assert f'"{KERNELS}/{source}"' in listed
        assert tree.text(f"{KERNELS}/{source}").startswith("#define VLLM_WHEELS_VNNI")
    assert "moe_int4.cpp" not in listed
    assert "dpbusd" in tree.text(HEADER)


@pytest.mark.parametrize("name", OTHERS)
def test_other_variants_stay_as_they_were(tmp_path, name):
    """A variant without VNNI, and the one with upstream's own AMX kernels, compile what they compiled."""
    tree = patched(write(tmp_path), wanted(name))
    assert HEADER not in tree.changed
    assert not any(path.startswith(KERNELS) or "vnni" in path for path in tree.changed)


@pytest.mark.parametrize("name", TAKE_IT)
def test_sources_without_the_mark_see_what_they_saw(tmp_path, name):
    """Upstream's guards stay behind ours, so that files which include the headers compile as before."""
    tree = patched(write(tmp_path), wanted(name))
    for header in ("gemm.h", "vec.h"):
        text = tree.text(f"{KERNELS}/{header}")
        assert '#if defined(VLLM_WHEELS_VNNI)\n#include "vllm_wheels_vnni.h"\n#elif defined(__AVX512F__)' in text
    assert "csrc/cpu/shm.cpp" not in tree.changed


def test_brgemm_of_torch_is_not_called(tmp_path):
    """Torch's brgemm ends the process on a CPU without AMX_INT8 or AVX512_CORE_VNNI; ours depends on nothing."""
    tree = patched(write(tmp_path), wanted())
    for source in ("gemm_int8.cpp", "moe_int8.cpp"):
        assert "at::native::cpublas" not in tree.text(f"{KERNELS}/{source}")
    assert "defined(CPU_CAPABILITY_AVX512) && !defined(VLLM_WHEELS_VNNI)" in tree.text(f"{KERNELS}/gemm.h")
    assert "CALL_DEQUANT_GEMM_ACCUM_SMALL_M(8)" in tree.text(f"{KERNELS}/gemm_int4.cpp")


def test_kernels_for_bfloat16_get_a_twin_for_float16(tmp_path):
    """AWQ and GPTQ checkpoints that say float16 use the kernels too."""
    text = patched(write(tmp_path), wanted()).text(f"{KERNELS}/gemm_int8.cpp")
    assert "struct scale_C<at::BFloat16, has_bias" in text
    assert "struct scale_C<at::Half, has_bias" in text
    assert text.count("vllm_wheels::to_halves(") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("avx512vnni", {"convert_weight_packed", "fused_experts_cpu", "int8_scaled_mm_with_quant", "silu"}),
        (
            "avx512bf16",
            {
                "convert_weight_packed",
                "fused_experts_cpu",
                "int8_scaled_mm_with_quant",
                "silu",
                "causal_conv1d_weight_pack",
                "causal_conv1d_fwd_cpu",
                "causal_conv1d_update_cpu",
            },
        ),
    ],
)
def test_ops_of_the_kernels_are_registered_and_those_for_amx_are_not(tmp_path, name, expected):
    """What the preprocessor leaves of the registrations is what the variant has compiled."""
    text = patched(write(tmp_path), wanted(name)).text(BINDINGS)
    flags = [flag for flag in variant(name).flags if flag.startswith("-m")]
    command = ["g++", *flags, "-E", "-P", "-x", "c++", "-"]
    left = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60).stdout
    assert set(re.findall(r'ops\.def\(\s*"(\w+)', left)) == expected


def test_gated_delta_kernels_are_compiled_where_python_calls_them(tmp_path):
    """avx512bf16 has the convolutions that Python calls where the CPU has BF16; before 0.29.0 it calls none."""
    source = f'"{KERNELS}/conv.cpp"'
    assert source in patched(write(tmp_path / "a"), wanted("avx512bf16")).text(CMAKE)
    assert source not in patched(write(tmp_path / "b"), wanted("avx512vnni")).text(CMAKE)
    older = write(tmp_path / "c", {vnni_tree.GATED_DELTA: "FAST = torch.cpu._is_amx_tile_supported()\n"})
    assert source not in patched(older, wanted("avx512bf16")).text(CMAKE)


def test_python_asks_what_the_wheel_has_in_place_of_amx(tmp_path):
    """Int4 and int8 layers and experts reach the kernels; nothing else is told that there is AMX."""
    tree = patched(write(tmp_path), wanted())
    condition = "envs.VLLM_CPU_INT4_W4A8 and _vnni_kernels.takes_int4(self.config)"
    assert f"layer.use_w4a8 = (\n            {condition}\n        )" in tree.text(INT4_LINEAR)
    linear = tree.text(LINEAR)
    assert "return dtype == torch.int8 and _vnni_kernels.takes_int8(n, k)" in linear
    assert linear.count("_is_amx_tile_supported") == 1
    experts = tree.text(EXPERTS)
    assert experts.count("_vnni_kernels.has_experts()") == 2
    assert experts.count("_is_amx_tile_supported") == 1
    for path in (INT4_LINEAR, LINEAR, EXPERTS, "vllm/_vnni_kernels.py"):
        ast.parse(tree.text(path))
        assert "from vllm import _vnni_kernels\n" in tree.text(path) or path.endswith("_vnni_kernels.py")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (f"{KERNELS}/gemm.h", "defined(__AMX_BF16__)", "defined(__AMX_INT8__)"),
        (f"{KERNELS}/vec.h", "quantize_row_int8", "quantize_row"),
        (f"{KERNELS}/gemm_int4.cpp", "unexpected M for AVX path", "unexpected M"),
        (f"{KERNELS}/gemm_int8.cpp", "at::native::cpublas::", "cpublas::"),
        (f"{KERNELS}/moe_int8.cpp", "struct scale_C<", "struct other_C<"),
        (f"{KERNELS}/moe.cpp", "fused_experts_fp8_kernel_impl", "fused_experts_fp8"),
        (f"{KERNELS}/gemm.cpp", "#include", "#import"),
        (BINDINGS, '  ops.def("fused_experts_cpu', '  int x;\n  ops.def("fused_experts_cpu'),
        (BINDINGS, "fused_experts_cpu", "experts_cpu"),
        (CMAKE, '"csrc/cpu/shm.cpp"', f'"{KERNELS}/gemm_int8.cpp"'),
        (INT4_LINEAR, "torch.cpu._is_amx_tile_supported()", "True"),
        (LINEAR, "n: int, k: int", "k: int, n: int"),
        (EXPERTS, "_is_amx_tile_supported", "_is_amx_fp16_supported"),
    ],
)
def test_place_that_is_not_as_known_is_an_error(tmp_path, path, old, new):
    """I am told the release and the file before anything is compiled."""
    text = {**patch_tree.FILES, CMAKE: patch_tree.UNIFIED, **vnni_tree.FILES}[path]
    assert old in text
    with pytest.raises(PatchError, match=re.escape(f"vLLM 0.33.0 cannot be patched in {path}")) as caught:
        patched(write(tmp_path, {path: text.replace(old, new)}), wanted())
    assert caught.value.why


@pytest.mark.parametrize("family", ["unified", "host-detected"])
def test_release_without_the_kernels_leaves_vnni_as_avx512(tmp_path, family):
    """Where kernels need AMX, the wheel says whose code it has, or that it has no VNNI, and why."""
    patch_tree.write(tmp_path, family)
    (tmp_path / KERNELS).mkdir(parents=True)
    (tmp_path / f"{KERNELS}/gemm_int8.cpp").write_text(vnni_tree.INT8)
    same_code = same_code_in(variant("avx512vnni"), tmp_path)
    assert same_code is not None
    assert (same_code.same_code_as, same_code.why[:24]) == ("avx512", "no kernel of upstream's ")
    found = wanted_for(tmp_path, patch_tree.upstream(family, "0.16.1"), variant("avx512vnni"), Settings())
    assert HEADER not in patched(tmp_path, found).changed


@pytest.mark.parametrize("name", TAKE_IT)
def test_release_with_the_kernels_keeps_every_promise(tmp_path, name):
    """Nothing is labelled where the variant compiles VNNI kernels."""
    write(tmp_path)
    assert same_code_in(variant(name), tmp_path) is None
    assert lacking(variant(name), tmp_path) == ()


CHECK = """\
#include "vllm_wheels_vnni.h"
#include <cstdio>
#include <vector>
int main() {
  for (int M : {1, 2, 5, 8, 9, 17}) for (int K : {4, 32, 132}) {
    std::vector<uint8_t> a(M * K);
    std::vector<int8_t> b(K * 32);
    std::vector<int32_t> c(M * 32);
    for (size_t i = 0; i < a.size(); ++i) a[i] = uint8_t(i * 37 + 200);
    for (size_t i = 0; i < b.size(); ++i) b[i] = int8_t(i * 53 + 1);
    vllm_wheels::brgemm(M, 32, K, K, 32, 32, false, a.data(), b.data(), c.data());
    for (int m = 0; m < M; ++m) for (int n = 0; n < 32; ++n) {
      int32_t sum = 0;
      for (int k = 0; k < K; ++k) sum += a[m * K + k] * b[k / 4 * 128 + n * 4 + k % 4];
      if (sum != c[m * 32 + n]) return 1;
    }
  }
  const float values[] = {1.0f, 1.00390625f, 1.01171875f, -3.14159f, 65504.0f, 1e-30f, 3.3e38f, 0.0f};
  for (float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t expected = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    uint16_t got[16];
    _mm256_storeu_si256((__m256i*)got, vllm_wheels::to_bfloat16(_mm512_set1_ps(value)));
    if (got[0] != expected) return 2;
  }
  return 0;
}
"""


def compile_check(folder: Path, flags: tuple[str, ...]) -> Path:
    """Compiles the header with stand-ins for the two of torch that it includes."""
    (folder / "c10/util").mkdir(parents=True)
    (folder / "c10/util/Exception.h").write_text("#define TORCH_CHECK(what, ...) if (!(what)) __builtin_abort()\n")
    (folder / "c10/util/Half.h").write_text("namespace at { struct Half { unsigned short x; }; }\n")
    header = files("vllm_wheels.core.patches").joinpath(native_vnni.HEADER).read_text("utf-8")
    (folder / native_vnni.HEADER).write_text(header)
    (folder / "check.cpp").write_text(CHECK)
    command = ["g++", "-std=c++20", "-O1", *flags, "-I", str(folder), "-o", "check", "check.cpp"]
    subprocess.run(command, cwd=folder, check=True, timeout=120, capture_output=True)
    return folder / "check"


@pytest.mark.parametrize("name", TAKE_IT)
def test_our_product_of_bytes_and_rounding_are_exact(tmp_path, name):
    """The header compiles with the variant's own flags; its product is that of plain loops, its rounding the CPU's."""
    program = compile_check(tmp_path, variant(name).flags)
    if not set(variant(name).floor) <= (cpu_flags() or frozenset()):
        pytest.skip(f"compiled; this CPU cannot run {name}")
    assert subprocess.run([program], check=False, timeout=60).returncode == 0


@pytest.mark.real
@pytest.mark.parametrize("name", TAKE_IT)
def test_real_0_32_0_takes_the_patch(tmp_path, name):
    """Every anchor is in the real release, and its variants with VNNI promise what they hold."""
    archive = cache_folder() / "vllm-0.32.0.tar.gz"
    if not archive.is_file():
        pytest.skip("vllm-0.32.0.tar.gz is not in the cache; python -m benchmarks.patch_table fetches it")
    unpack(archive, tmp_path / "tree")
    demands = upstream.read(tmp_path / "tree", release="0.32.0")
    found = wanted_for(tmp_path / "tree", demands, variant(name), Settings())
    assert (found.same_code, found.lacking) == (None, ())
    tree = patched(tmp_path / "tree", found)
    expected = compiled.vnni_sources(tmp_path / "tree", variant(name))
    assert len(expected) == len(compiled.VNNI_SOURCES) + (name == "avx512bf16")
    assert {*expected, HEADER, "vllm/_vnni_kernels.py", INT4_LINEAR, LINEAR, EXPERTS} <= set(tree.changed)
