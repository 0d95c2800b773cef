// Lets sources of csrc/cpu/sgl-kernels compile with AVX-512 and VNNI alone: without AMX, and without AVX512_BF16
// where the compiler is not told that the processor has it. A source asks for it by defining VLLM_WHEELS_VNNI in its
// first line; all others, fla.cpp among them, stay as they are.
//
// Written for the wheels of vllm-wheels; nothing in here is upstream's.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || \
    !defined(__AVX512VNNI__)
#error "VLLM_WHEELS_VNNI needs AVX-512 (F, VL, BW, DQ) and VNNI"
#endif
#if defined(__AMX_BF16__)
#error "VLLM_WHEELS_VNNI is for processors without AMX"
#endif

// torch's vector classes of 512 bits must not be taken for those that the extension's other sources know under the
// same name, of 256 bits or scalar: the linker keeps one of two functions with one name. The namespace keeps them apart.
#if !defined(CPU_CAPABILITY)
#define CPU_CAPABILITY VLLM_WHEELS_AVX512_VNNI
#endif
#define CPU_CAPABILITY_AVX512

namespace {
namespace vllm_wheels {

// In place of kernels that are not compiled without AMX; Python does not ask for them.
template <typename... Ignored>
[[noreturn]] inline void needs_amx(const Ignored&...) {
  TORCH_CHECK(false, "this kernel needs AMX, which this build of vLLM is without");
}

// 16 numbers to bfloat16, rounded to the nearest and ties to even, as VCVTNEPS2BF16 does. Unlike it, denormal
// numbers are kept. A NaN becomes a quiet one.
inline __attribute__((always_inline)) __m256i to_bfloat16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

// The second operand goes to the lower half, as with _mm512_cvtne2ps_pbh.
inline __attribute__((always_inline)) __m512i to_halves(__m512 high, __m512 low) {
  constexpr int how = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(low, how)), _mm512_cvtps_ph(high, how), 1);
}

// One row of activations to 8 bits with one scale, symmetric: value = (byte - 128) * scale. Rounds ties to even, as
// upstream's function for bfloat16 does.
inline void quantize_row(
    uint8_t* __restrict__ bytes, float& scale, const at::Half* __restrict__ values, int64_t size, float eps) {
  const auto load = [&](int64_t i, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, values + i));
  };
  const auto mask_at = [&](int64_t i) {
    return static_cast<__mmask16>(size - i < 16 ? (1u << (size - i)) - 1 : 0xffffu);
  };
  __m512 largest = _mm512_setzero_ps();
  for (int64_t i = 0; i < size; i += 16) {
    largest = _mm512_max_ps(largest, _mm512_abs_ps(load(i, mask_at(i))));
  }
  const float limit = std::max(_mm512_reduce_max_ps(largest), eps);
  const __m512 factor = _mm512_set1_ps(127 / limit);
  for (int64_t i = 0; i < size; i += 16) {
    const __mmask16 mask = mask_at(i);
    const __m512i rounded = _mm512_cvt_roundps_epi32(
        _mm512_mul_ps(load(i, mask), factor), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm512_mask_cvtepi32_storeu_epi8(bytes + i, mask, _mm512_add_epi32(rounded, _mm512_set1_epi32(128)));
  }
  scale = limit / 127;
}

// Columns of a product at a time, as upstream's weights are laid out for: [K / 4, COLUMNS, 4].
constexpr int64_t COLUMNS = 32;

// C[ROWS, COLUMNS] = A[ROWS, K] * B[K, COLUMNS], by VPDPBUSD. Each sum has a name, so that the compiler keeps it in a
// register: those of an array it moves about. 16 sums hide the latency of the instruction.
template <int ROWS>
inline __attribute__((noinline)) void multiply_rows(
    int32_t* __restrict__ C, const uint8_t* __restrict__ A, const int8_t* __restrict__ B, int64_t K, int64_t lda,
    int64_t ldc) {
#define VLLM_WHEELS_EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define VLLM_WHEELS_CLEAR(ROW) __m512i left##ROW = _mm512_setzero_si512(), right##ROW = _mm512_setzero_si512();
#define VLLM_WHEELS_ADD(ROW)                                             \
  if constexpr (ROW < ROWS) {                                            \
    int32_t four;                                                        \
    std::memcpy(&four, A + ROW * lda + k, sizeof(four));                 \
    const __m512i a = _mm512_set1_epi32(four);                           \
    left##ROW = _mm512_dpbusd_epi32(left##ROW, a, b_left);               \
    right##ROW = _mm512_dpbusd_epi32(right##ROW, a, b_right);            \
  }
#define VLLM_WHEELS_STORE(ROW)                                           \
  if constexpr (ROW < ROWS) {                                            \
    _mm512_storeu_si512(C + ROW * ldc, left##ROW);                       \
    _mm512_storeu_si512(C + ROW * ldc + 16, right##ROW);                 \
  }
  VLLM_WHEELS_EACH_ROW(VLLM_WHEELS_CLEAR)
  for (int64_t k = 0; k < K; k += 4) {
    const __m512i b_left = _mm512_loadu_si512(B + k * COLUMNS);
    const __m512i b_right = _mm512_loadu_si512(B + k * COLUMNS + 64);
    VLLM_WHEELS_EACH_ROW(VLLM_WHEELS_ADD)
  }
  VLLM_WHEELS_EACH_ROW(VLLM_WHEELS_STORE)
#undef VLLM_WHEELS_STORE
#undef VLLM_WHEELS_ADD
#undef VLLM_WHEELS_CLEAR
#undef VLLM_WHEELS_EACH_ROW
}

// In place of at::native::cpublas::brgemm for 8 bits, which is oneDNN's: what that can do depends on the processor and
// on what the environment grants, and what it cannot do ends the process.
inline void brgemm(
    int64_t M, int64_t N, int64_t K, int64_t lda, int64_t ldb, int64_t ldc, bool add_C, const uint8_t* A,
    const int8_t* B, int32_t* C, bool is_vnni = true) {
  TORCH_CHECK(N == COLUMNS && ldb == COLUMNS && K % 4 == 0 && !add_C && is_vnni, "no kernel for N=", N, ", K=", K);
  using rows = void (*)(int32_t*, const uint8_t*, const int8_t*, int64_t, int64_t, int64_t);
  constexpr rows by_rows[] = {
      multiply_rows<1>, multiply_rows<2>, multiply_rows<3>, multiply_rows<4>,
      multiply_rows<5>, multiply_rows<6>, multiply_rows<7>, multiply_rows<8>};
  for (int64_t m = 0; m < M; m += 8) {
    by_rows[std::min<int64_t>(M - m, 8) - 1](C + m * ldc, A + m * lda, B, K, lda, ldc);
  }
}

inline void brgemm_release() {}

// Upstream's other kernels hold the sums of up to 4 rows.
inline bool can_use_brgemm(int64_t M, int64_t N = COLUMNS) { return M > 4; }

#if !defined(__AVX512BF16__)

inline __attribute__((always_inline)) __m256bh cvtneps_pbh(__m512 x) { return (__m256bh)to_bfloat16(x); }

// The second operand goes to the lower half, as with VCVTNE2PS2BF16.
inline __attribute__((always_inline)) __m512bh cvtne2ps_pbh(__m512 high, __m512 low) {
  return (__m512bh)_mm512_inserti64x4(_mm512_castsi256_si512(to_bfloat16(low)), to_bfloat16(high), 1);
}

// Sum of the products of pairs, in float32. VDPBF16PS adds the odd product first and the even one after it, too.
inline __attribute__((always_inline)) __m512 dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000));
  const __m512i a_bits = (__m512i)a;
  const __m512i b_bits = (__m512i)b;
  const __m512 a_odd = _mm512_castsi512_ps(_mm512_and_si512(a_bits, upper));
  const __m512 b_odd = _mm512_castsi512_ps(_mm512_and_si512(b_bits, upper));
  const __m512 a_even = _mm512_castsi512_ps(_mm512_slli_epi32(a_bits, 16));
  const __m512 b_even = _mm512_castsi512_ps(_mm512_slli_epi32(b_bits, 16));
  return _mm512_fmadd_ps(a_even, b_even, _mm512_fmadd_ps(a_odd, b_odd, sum));
}

#endif

}  // namespace vllm_wheels
}  // namespace

#if !defined(__AVX512BF16__)
#define _mm512_cvtneps_pbh vllm_wheels::cvtneps_pbh
#define _mm512_cvtne2ps_pbh vllm_wheels::cvtne2ps_pbh
#define _mm512_dpbf16_ps vllm_wheels::dpbf16_ps
#endif
