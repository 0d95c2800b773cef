"""The anchors of upstream's int4 and int8 kernels in a few lines, shaped like 0.32.0; written over ``patch_tree``."""

from __future__ import annotations

from pathlib import Path

from vllm_wheels_tests.core import patch_tree

KERNELS = "csrc/cpu/sgl-kernels"
INT4_LINEAR = "vllm/model_executor/kernels/linear/mixed_precision/cpu.py"
LINEAR = "vllm/model_executor/layers/utils.py"
EXPERTS = "vllm/model_executor/layers/fused_moe/experts/cpu_moe.py"
GATED_DELTA = "vllm/model_executor/layers/mamba/ops/cpu/gdn_attention.py"
BINDINGS = "csrc/cpu/torch_bindings.cpp"

GUARD = """\
#pragma once
#if defined(__AVX512F__) && defined(__AVX512BF16__) && defined(__AMX_BF16__)
#define CPU_CAPABILITY_AVX512
#endif
"""
GEMM_H = (
    GUARD
    + """\
constexpr bool brgemm_supported() {
#if defined(CPU_CAPABILITY_AVX512)
  return true;
#else
  return false;
#endif
}
"""
)
VEC_H = (
    GUARD
    + """\
#if defined(CPU_CAPABILITY_AVX512)
template <>
inline void quantize_row_int8<at::BFloat16>(uint8_t* Aq) {}
#endif
"""
)
GEMM_INT4 = """\
#include "gemm.h"
  switch (M) {
    case 4:
      CALL_DEQUANT_GEMM_ACCUM_SMALL_M(4);
      break;
    default:
      TORCH_CHECK(false, "tinygemm_kernel: unexpected M for AVX path!");
  }
  a = _mm512_dpbusd_epi32(a, b, c);
"""
INT8 = """\
#include "gemm.h"
template <bool has_bias, int BLOCK_N>
struct scale_C<at::BFloat16, has_bias, BLOCK_N> {
  a = (__m512i)(_mm512_cvtne2ps_pbh(b, c));
  d = _mm512_dpbusd_epi32(a, b, c);
};
  const bool use = can_use_brgemm<int8_t>(M);
  at::native::cpublas::brgemm(M, N, K);
  at::native::cpublas::brgemm_release();
"""
MOE = """\
#include "gemm.h"
  fused_experts_fp8_kernel_impl<at::BFloat16>(out, in);
  fused_experts_kernel_impl(out, in);
"""
OPS = """\
#if defined(__AVX512BF16__) && defined(__AVX512F__) && \\
    defined(__AVX512VNNI__)
  ops.def(
      "convert_weight_packed(Tensor! weight) -> Tensor");
  ops.impl("convert_weight_packed", torch::kCPU, &convert_weight_packed);
  // Experts.
  ops.def("fused_experts_cpu(Tensor out) -> ()");
  ops.def("fp8_scaled_mm_cpu(Tensor mat1) -> Tensor");
  ops.def("int8_scaled_mm_with_quant(Tensor mat1) -> Tensor");
#endif
#ifdef __AVX512F__
  ops.def("silu(Tensor x) -> Tensor");
#endif
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
  ops.def("causal_conv1d_weight_pack(Tensor w) -> Tensor");
  ops.def("causal_conv1d_fwd_cpu(Tensor w) -> Tensor");
  ops.def("causal_conv1d_update_cpu(Tensor w) -> Tensor");
#endif
"""
INT4_LINEAR_TEXT = """\
import torch
from vllm import envs


class CPUWNA16LinearKernel:
    def process(self, layer):
        layer.use_w4a8 = (
            envs.VLLM_CPU_INT4_W4A8
            and self.config.act_type == torch.bfloat16
            and torch.cpu._is_amx_tile_supported()
        )
"""
LINEAR_TEXT = """\
import torch
from vllm import envs


def check_cpu_sgl_kernel(n: int, k: int, dtype: torch.dtype) -> bool:
    return (
        torch.cpu._is_amx_tile_supported()
        and dtype in (torch.bfloat16, torch.int8)
        and n % 16 == 0
    )


def dispatch():
    return torch.cpu._is_amx_tile_supported()
"""
EXPERTS_TEXT = """\
import torch
from vllm.platforms import current_platform


class CPUExpertsFp8:
    def _supports_current_device():
        return torch.cpu._is_amx_tile_supported()


class CPUExpertsInt4:
    def _supports_current_device():
        return current_platform.is_cpu() and torch.cpu._is_amx_tile_supported()


class CPUExpertsInt8:
    def _supports_current_device():
        return torch.cpu._is_amx_tile_supported()
"""
FILES = {
    f"{KERNELS}/gemm.h": GEMM_H,
    f"{KERNELS}/vec.h": VEC_H,
    f"{KERNELS}/gemm.cpp": '#include "gemm.h"\n',
    f"{KERNELS}/gemm_int8.cpp": INT8,
    f"{KERNELS}/gemm_int4.cpp": GEMM_INT4,
    f"{KERNELS}/moe.cpp": MOE,
    f"{KERNELS}/moe_int8.cpp": INT8,
    f"{KERNELS}/conv.cpp": '#include "vec.h"\n',
    "csrc/cpu/shm.cpp": '#include "cpu/sgl-kernels/vec.h"\n',
    BINDINGS: OPS,
    INT4_LINEAR: INT4_LINEAR_TEXT,
    LINEAR: LINEAR_TEXT,
    EXPERTS: EXPERTS_TEXT,
    GATED_DELTA: "import torch\n\nFAST = torch.cpu._is_avx512_bf16_supported()\n",
}


def write(root: Path, changes: dict[str, str] | None = None) -> Path:
    """Writes the tree; ``changes`` are whole new texts by path."""
    patch_tree.write(root)
    for path, text in {**FILES, **(changes or {})}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root
