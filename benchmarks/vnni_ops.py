"""The int4 and int8 ops of an installed wheel with VNNI kernels: right, and how many times as fast as without them.

    python benchmarks/vnni_ops.py check
    python benchmarks/vnni_ops.py speed

Runs in an environment where the avx512vnni or avx512bf16 wheel of a release from 0.23.0 on is installed. ``check``
compares dense products of many shapes with float64, once with activations quantized as the ops do and once with none
quantized, and ends with status 1 where one is further off than it may be. ``speed`` lets the op and what a wheel
without it runs take turns, and prints the median of the ratios of neighbouring runs with their quartiles: of CPU time
with one thread, which other load does not change, and of elapsed time with two (set OMP_WAIT_POLICY=passive).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from itertools import product

import torch  # type: ignore[import-not-found, unused-ignore]
import vllm._C  # type: ignore[import-not-found, unused-ignore]  # noqa: F401 - registers the ops

OPS = torch.ops._C  # noqa: SLF001 - the name under which vLLM registers them
BF16, FP16 = torch.bfloat16, torch.float16
AWQ = (0, 4, 1, 5, 2, 6, 3, 7)
"""Value 8c + j of a row lies in nibble AWQ[j] of word c."""

ROWS = (1, 3, 4, 5, 8, 9, 17, 64, 129)
INT4_SHAPES = ((128, 32, 128), (256, 96, 64), (416, 160, 32), (1024, 64, 1024))
INT8_SHAPES = ((32, 32), (160, 96), (544, 160), (4096, 128))
ROUNDING = {BF16: 0.0025, FP16: 0.0008}
"""Relative error of a result that is only rounded: 2^-9 and 2^-12, and ties in the activations cost a little more."""

OF_8_BITS = 0.02
"""Relative error that 8-bit activations may cause."""

SIZE, GROUP = 4096, 128
TURNS = int(os.environ.get("TURNS", "15"))


def packed(values: torch.Tensor, order: Iterable[int]) -> torch.Tensor:
    """Eight values of 0 to 15 in each word of 32 bits."""
    grouped = values.to(torch.int64).unflatten(-1, (-1, 8))
    word = sum(grouped[..., index] << (4 * place) for index, place in enumerate(order))
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32).contiguous()


def int4_layer(size: int, columns: int, group: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Random 4-bit values, zero points and scales."""
    groups = size // group
    values = torch.randint(0, 16, (size, columns))
    return values, torch.randint(0, 16, (groups, columns)), (torch.rand(groups, columns) * 0.02 + 0.002).to(dtype)


def quantized(rows: torch.Tensor) -> torch.Tensor:
    """Activations as the ops see them: 8 bits, symmetric, one scale for a row."""
    largest = rows.float().abs().amax(-1, keepdim=True).clamp_min(1e-7)
    # Not 127 / largest, which torch computes by way of 1 / largest.
    return (rows.float() * (torch.full_like(largest, 127) / largest)).round().double() * (largest / 127).double()


def is_near(what: str, got: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> bool:
    """Whether a result is as near to float64 as it must be; says so where it is not."""

    def error(wanted: torch.Tensor) -> float:
        return float((got.double() - wanted).norm() / wanted.norm())

    strict, whole = error(quantized(rows) @ weights), error(rows.double() @ weights)
    near = strict <= ROUNDING[rows.dtype] and whole <= OF_8_BITS
    if not near:
        print(f"{what}: off by {strict:.5f}, and {whole:.5f} in all")
    return near


def check() -> bool:
    """Dense products of both kinds in both types."""
    outcomes = []
    for (size, columns, group), dtype in product(INT4_SHAPES, (BF16, FP16)):
        values, zeros, scales = int4_layer(size, columns, group, dtype)
        layer = OPS.convert_weight_packed_scale_zp(packed(values, AWQ), packed(zeros, AWQ), scales, 0)
        wide = [each.repeat_interleave(group, dim=0).double() for each in (zeros, scales)]
        for count in ROWS:
            rows = torch.randn(count, size).to(dtype)
            got = OPS.int4_scaled_mm_cpu(rows, *layer, None)
            what = f"int4 {dtype} M={count} K={size} N={columns} group {group}"
            outcomes.append(is_near(what, got, rows, (values.double() - wide[0]) * wide[1]))
    for (size, columns), dtype in product(INT8_SHAPES, (BF16, FP16)):
        values = torch.randint(-127, 128, (columns, size), dtype=torch.int8)
        scales = torch.rand(columns) * 0.01 + 0.001
        layer = OPS.convert_weight_packed(values)
        for count in ROWS:
            rows = torch.randn(count, size).to(dtype)
            got = OPS.int8_scaled_mm_with_quant(rows, layer, scales, None, dtype, True)  # noqa: FBT003 - the op's own
            what = f"int8 {dtype} M={count} K={size} N={columns}"
            outcomes.append(is_near(what, got, rows, (values.double() * scales.double()[:, None]).T))
    print(f"{len(outcomes)} products, {outcomes.count(False)} too far off")
    return all(outcomes)


def compare(name: str, without: Callable[[], object], with_it: Callable[[], object]) -> None:
    """Prints one line of ratios; above 1 the op is faster."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds(call: Callable[[], object]) -> float:
        started = clock()
        for _ in range(5):
            call()
        return (clock() - started) / 5

    without(), with_it()
    ratios = sorted(seconds(without) / seconds(with_it) for _ in range(TURNS))
    low, high = ratios[len(ratios) // 4], ratios[-(len(ratios) // 4) - 1]
    print(f"{name}: {statistics.median(ratios):.2f} (quartiles {low:.2f} to {high:.2f})", flush=True)


def speed() -> None:
    """Int4 over ``cpu_gemm_wna16``, with 4096 inputs and outputs."""
    print(f"K = N = {SIZE}, group {GROUP}, load {os.getloadavg()[0]:.1f}")
    for dtype, threads, count in product((BF16, FP16), (1, 2), (1, 4, 16, 128)):
        torch.set_num_threads(threads)
        values, _, scales = int4_layer(SIZE, SIZE, GROUP, dtype)
        zeros = torch.full((SIZE // GROUP, SIZE), 8)
        layer = OPS.convert_weight_packed_scale_zp(packed(values, AWQ), packed(zeros, AWQ), scales, 0)
        wide = packed(values, range(8)).view(SIZE, -1, 2).permute(1, 0, 2).reshape(-1, SIZE * 2).contiguous()
        rows, out = torch.randn(count, SIZE).to(dtype), torch.empty(count, SIZE, dtype=dtype)

        def without(rows=rows, out=out, wide=wide, scales=scales) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001
            return OPS.cpu_gemm_wna16(rows, wide, out, scales, None, None, 8, "vec")

        def with_it(rows=rows, layer=layer) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001
            return OPS.int4_scaled_mm_cpu(rows, *layer, None)

        compare(f"int4 {dtype} over cpu_gemm_wna16, M={count}, threads {threads}", without, with_it)


def main(arguments: list[str]) -> int:
    """Checks, or measures."""
    if arguments == ["check"]:
        return 0 if check() else 1
    if arguments == ["speed"]:
        speed()
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
