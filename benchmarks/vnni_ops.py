"""The int4 and int8 ops of an installed wheel with VNNI kernels: right, and how many times as fast as without them.

    python benchmarks/vnni_ops.py check
    python benchmarks/vnni_ops.py speed

Runs in an environment where the avx512vnni or avx512bf16 wheel of a release from 0.23.0 on is installed. ``check``
compares products and experts of many shapes with float64, once with activations quantized as the ops do and once with
none quantized, and ends with status 1 where one is further off than it may be. ``speed`` lets the op and what a wheel
without it runs take turns, and prints the median of the ratios of neighbouring runs with their quartiles: of CPU time
with one thread, which other load does not change, and of elapsed time with all (set OMP_WAIT_POLICY=passive), then one
line of JSON. THREADS names other numbers of threads, TURNS how many ratios there are, and TYPES the activations' types
(``bfloat16 float16``); upstream's own kernels, in the amxbf16 wheel, take bfloat16 alone.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch  # type: ignore[import-not-found, unused-ignore]
import vllm._C  # type: ignore[import-not-found, unused-ignore]  # noqa: F401 - registers the ops

OPS = torch.ops._C  # noqa: SLF001 - the name under which vLLM registers them
BF16, FP16 = torch.bfloat16, torch.float16
TYPES = [getattr(torch, name) for name in os.environ.get("TYPES", "bfloat16 float16").split()]
AWQ = (0, 4, 1, 5, 2, 6, 3, 7)
"""Value 8c + j of a row lies in nibble AWQ[j] of word c."""

INT8_W8A8, INT4_W4A8 = 1, 3
"""Members of vLLM's ``CPUQuantMethod``."""

ROWS = (1, 3, 4, 5, 8, 9, 17, 64, 129, 257)
INT4_SHAPES = ((128, 32, 128), (256, 96, 64), (416, 160, 32), (1024, 64, 1024), (2816, 224, 128))
INT8_SHAPES = ((32, 32), (160, 96), (544, 160), (4096, 128))
EXPERTS = ((4, 256, 128, 64), (8, 416, 96, 32), (3, 512, 384, 128))
"""Number of experts, inputs, width between the two products, and group of int4."""

CHOSEN = 2
"""Experts that compute each row."""

ROUNDING = {BF16: 0.0025, FP16: 0.0008}
"""Relative error of a result that is only rounded: 2^-9 and 2^-12, and ties in the activations cost a little more."""

ROUNDING_BETWEEN = {BF16: 0.009, FP16: 0.007}
"""The same for experts, who quantize what is rounded between their two products."""

OF_8_BITS, OF_8_BITS_TWICE = 0.02, 0.035
"""Relative error that 8-bit activations may cause."""

SIZE, GROUP = 4096, 128
SPEED_ROWS = (1, 4, 16, 64, 128, 256)
THREADS = [int(each) for each in os.environ.get("THREADS", f"1 {os.cpu_count()}").split()]
TURNS = int(os.environ.get("TURNS", "15"))


@dataclass(frozen=True)
class Weights:
    """Packed for an op, and what they stand for.

    Attributes:
        packed: tensors that the op takes.
        plain: [inputs, outputs], float64; with experts a dimension before these.
    """

    packed: tuple[torch.Tensor, ...]
    plain: torch.Tensor

    @classmethod
    def int4(cls, *shape: int, group: int, dtype: torch.dtype) -> Weights:
        """Random 4-bit values, zero points and scales."""
        *experts, size, columns = shape
        groups = (*experts, size // group, columns)
        values, zeros = torch.randint(0, 16, shape), torch.randint(0, 16, groups)
        scales = (torch.rand(groups) * 0.02 + 0.002).to(dtype)
        layer = OPS.convert_weight_packed_scale_zp(packed(values, AWQ), packed(zeros, AWQ), scales, 0)
        wide = [each.repeat_interleave(group, dim=-2).double() for each in (zeros, scales)]
        return cls(tuple(layer), (values.double() - wide[0]) * wide[1])

    @classmethod
    def int8(cls, *shape: int) -> Weights:
        """Random 8-bit values with a scale for each output."""
        *experts, size, columns = shape
        values = torch.randint(-127, 128, (*experts, columns, size), dtype=torch.int8)
        scales = torch.rand(*experts, columns) * 0.01 + 0.001
        plain = (values.double() * scales.double()[..., None]).transpose(-1, -2)
        return cls((OPS.convert_weight_packed(values), scales), plain)


@dataclass(frozen=True)
class Case:
    """One call of an op: what it gives, and what is right with activations that pass through a function."""

    what: str
    got: torch.Tensor
    right: Callable[[Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]
    rounding: float
    of_8_bits: float

    def is_near(self) -> bool:
        """Whether the result is as near to float64 as it must be; says so where it is not."""
        strict, whole = (self._error(self.right(through)) for through in (quantized, torch.Tensor.double))
        near = strict <= self.rounding and whole <= self.of_8_bits
        if not near:
            print(f"{self.what}: off by {strict:.5f}, and {whole:.5f} in all")
        return near

    def _error(self, wanted: torch.Tensor) -> float:
        return float((self.got.double() - wanted).norm() / wanted.norm())


def packed(values: torch.Tensor, order: Iterable[int]) -> torch.Tensor:
    """Eight values of 0 to 15 in each word of 32 bits."""
    grouped = values.to(torch.int64).unflatten(-1, (-1, 8))
    word = sum(grouped[..., index] << (4 * place) for index, place in enumerate(order))
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32).contiguous()


def quantized(rows: torch.Tensor) -> torch.Tensor:
    """Activations as the ops see them: 8 bits, symmetric, one scale for a row."""
    largest = rows.float().abs().amax(-1, keepdim=True).clamp_min(1e-7)
    # Not 127 / largest, which torch computes by way of 1 / largest.
    return (rows.float() * (torch.full_like(largest, 127) / largest)).round().double() * (largest / 127).double()


def dense() -> Iterator[Case]:
    """Products of both kinds in both types, every other one with a bias."""
    for number, ((size, columns, group), dtype, count) in enumerate(product(INT4_SHAPES, TYPES, ROWS)):
        weights = Weights.int4(size, columns, group=group, dtype=dtype)
        rows, bias = torch.randn(count, size).to(dtype), torch.randn(columns) if number % 2 else None
        got = OPS.int4_scaled_mm_cpu(rows, *weights.packed, bias)
        yield product_of(f"int4 M={count} group {group}", got, rows, weights.plain, bias)
    for number, ((size, columns), dtype, count) in enumerate(product(INT8_SHAPES, TYPES, ROWS)):
        weights = Weights.int8(size, columns)
        rows, bias = torch.randn(count, size).to(dtype), torch.randn(columns) if number % 2 else None
        got = OPS.int8_scaled_mm_with_quant(rows, *weights.packed, bias, dtype, True)  # noqa: FBT003 - the op's own
        yield product_of(f"int8 M={count}", got, rows, weights.plain, bias)


def product_of(
    what: str, got: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None
) -> Case:
    """The case of a product."""

    def right(through: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return through(rows) @ weights + (0 if bias is None else bias.double())

    what = f"{what} {rows.dtype} K={weights.shape[0]} N={weights.shape[1]}"
    return Case(what, got, right, ROUNDING[rows.dtype], OF_8_BITS)


def experts() -> Iterator[Case]:
    """Experts of both kinds in both types."""
    for (number, size, width, group), dtype, count in product(EXPERTS, TYPES, ROWS):
        rows = torch.randn(count, size).to(dtype)
        gates = torch.softmax(torch.randn(count, number), -1)
        shares, chosen = (each.contiguous() for each in gates.topk(CHOSEN, -1))
        choice = (shares, chosen.to(torch.int32))
        what = f"M={count} {dtype} experts {number} K={size} N={width}"
        int4 = [Weights.int4(number, *shape, group=group, dtype=dtype) for shape in ((size, 2 * width), (width, size))]
        yield chosen_experts(f"int4 {what}", INT4_W4A8, rows, choice, int4)
        int8 = [Weights.int8(number, *shape) for shape in ((size, 2 * width), (width, size))]
        yield chosen_experts(f"int8 {what}", INT8_W8A8, rows, choice, int8)


def chosen_experts(
    what: str,
    method: int,
    rows: torch.Tensor,
    choice: tuple[torch.Tensor, torch.Tensor],
    layers: list[Weights],
) -> Case:
    """The case of experts, each a product, SiLU of one half times the other, and a product."""
    (first, *of_first), (second, *of_second) = (each.packed for each in layers)
    zeros = [of[0] if len(of) == 2 else None for of in (of_first, of_second)]  # noqa: PLR2004 - zero points and scales
    scales = [of_first[-1], of_second[-1]]
    got = torch.empty_like(rows)
    left = (None,) * 6
    # The kernel for int4 writes the first product down in the type of its activations.
    stored = rows.dtype if method == INT4_W4A8 else torch.float64
    OPS.fused_experts_cpu(got, rows, first, second, *choice, method, *scales, *zeros, *left, True)  # noqa: FBT003 - the op's own

    def right(through: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        sums = []
        for row, shares, chosen in zip(rows, *choice, strict=True):
            inside = [(through(row) @ layers[0].plain[one]).to(stored).double() for one in chosen.tolist()]
            between = [torch.nn.functional.silu(gate) * up for gate, up in (each.chunk(2) for each in inside)]
            parts = [through(each.to(rows.dtype)) for each in between]
            outs = [part @ layers[1].plain[one] for part, one in zip(parts, chosen.tolist(), strict=True)]
            sums.append(sum(share * out for share, out in zip(shares.double(), outs, strict=True)))
        return torch.stack(sums)

    return Case(what, got, right, ROUNDING_BETWEEN[rows.dtype], OF_8_BITS_TWICE)


def check() -> bool:
    """All cases."""
    torch.manual_seed(0)
    outcomes = [case.is_near() for case in (*dense(), *experts())]
    print(f"{len(outcomes)} products, {outcomes.count(False)} too far off")
    return all(outcomes)


def compare(without: Callable[[], object], with_it: Callable[[], object]) -> list[float]:
    """Median of the ratios of neighbouring runs, and their quartiles; above 1 the op is faster."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds(call: Callable[[], object]) -> float:
        started = clock()
        for _ in range(5):
            call()
        return (clock() - started) / 5

    without(), with_it()
    ratios = sorted(seconds(without) / seconds(with_it) for _ in range(TURNS))
    low, high = ratios[len(ratios) // 4], ratios[-(len(ratios) // 4) - 1]
    return [round(each, 2) for each in (statistics.median(ratios), low, high)]


def speed() -> None:
    """Int4 over ``cpu_gemm_wna16`` and int8 over oneDNN, with 4096 inputs and outputs."""
    found = {}
    for threads, dtype, (bits, ways), count in product(THREADS, TYPES, WAYS.items(), SPEED_ROWS):
        torch.set_num_threads(threads)
        name = f"{bits} {str(dtype).removeprefix('torch.')}, threads {threads}, M={count}"
        found[name] = compare(*ways(torch.randn(count, SIZE).to(dtype)))
        median, low, high = found[name]
        print(f"{name}: {median:.2f} (quartiles {low:.2f} to {high:.2f})", flush=True)
    print(json.dumps({"benchmark": "vnni_ops", "load": round(os.getloadavg()[0], 1), "ratios": found}))


def int4_ways(rows: torch.Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """A product by 16-bit activations, and by 8-bit ones."""
    values, dtype, out = torch.randint(0, 16, (SIZE, SIZE)), rows.dtype, torch.empty_like(rows)
    zeros = torch.full((SIZE // GROUP, SIZE), 8)
    scales = (torch.rand(SIZE // GROUP, SIZE) * 0.02 + 0.002).to(dtype)
    layer = OPS.convert_weight_packed_scale_zp(packed(values, AWQ), packed(zeros, AWQ), scales, 0)
    wide = packed(values, range(8)).view(SIZE, -1, 2).permute(1, 0, 2).reshape(-1, SIZE * 2).contiguous()
    return (
        lambda: OPS.cpu_gemm_wna16(rows, wide, out, scales, None, None, 8, "vec"),
        lambda: OPS.int4_scaled_mm_cpu(rows, *layer, None),
    )


def int8_ways(rows: torch.Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """A product by oneDNN, with the quantization of activations, and by the op that does both."""
    values, scales = torch.randint(-127, 128, (SIZE, SIZE), dtype=torch.int8), torch.rand(SIZE) * 0.01 + 0.001
    dtype, out = rows.dtype, torch.empty_like(rows)
    handle = OPS.create_onednn_scaled_mm_handler(values.t(), scales, dtype, True, False, 32)  # noqa: FBT003 - the op's own
    handler = torch.tensor(handle, dtype=torch.int64)
    layer = OPS.convert_weight_packed(values)

    def by_onednn() -> None:
        bytes_, factors = torch.empty_like(rows, dtype=torch.int8), torch.empty(len(rows), 1)
        OPS.dynamic_scaled_int8_quant(bytes_, rows, factors, None)
        OPS.onednn_scaled_mm(out, bytes_, factors, None, None, None, handler)

    return by_onednn, lambda: OPS.int8_scaled_mm_with_quant(rows, layer, scales, None, dtype, True)  # noqa: FBT003 - the op's own


WAYS = {"int4": int4_ways, "int8": int8_ways}


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
