# SPDX-License-Identifier: Apache-2.0
"""Quantizes to FP8 on CPUs, where upstream registers placeholders that take no arguments.

vllm-wheels puts this file into wheels. Upstream calls it while it loads FP8 checkpoints whose parts have scales of
their own (q, k and v in one layer); without it they end in "static_scaled_fp8_quant() expected at most 0 argument(s)".
"""

from __future__ import annotations

from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]

SMALLEST_STEPS = 512.0
"""Upstream's kernels for GPUs take no scale below that of the largest FP8 value, divided by this."""


def quantized(  # noqa: PLR0917 - upstream's parameters
    input: Any,  # noqa: A002 - upstream's name
    scale: Any = None,
    num_token_padding: int | None = None,
    scale_ub: Any = None,
    use_per_token_if_dynamic: bool = False,  # noqa: FBT001, FBT002 - upstream's parameters
    output: Any = None,
    group_shape: tuple[int, int] | None = None,
) -> tuple[Any, Any]:
    """The quantized matrix and its scale, as upstream's ``scaled_fp8_quant`` gives them."""
    rows, columns = input.shape
    if output is None:
        output = torch.empty((max(num_token_padding or 0, rows), columns), dtype=torch.float8_e4m3fn)
    limits = torch.finfo(output.dtype)
    values = input.to(torch.float32)
    if scale is None:
        scale = _measured(values, limits.max, scale_ub, per_token=use_per_token_if_dynamic)
    divided = values / _spread(scale.to(torch.float32), rows, columns, group_shape)
    output[:rows] = divided.clamp(limits.min, limits.max).to(output.dtype)
    return output, scale


def _measured(values: Any, largest: float, bound: Any, *, per_token: bool) -> Any:
    found = values.abs()
    found = found.amax(dim=-1, keepdim=True) if per_token else found.amax().reshape(1)
    if bound is not None:
        found = found.clamp(max=bound.item())
    return (found / largest).clamp(min=1.0 / (largest * SMALLEST_STEPS))


def _spread(scale: Any, rows: int, columns: int, group_shape: tuple[int, int] | None) -> Any:
    """The scale in a shape that divides a matrix of that many rows and columns."""
    if scale.numel() == 1:
        return scale.reshape(1, 1)
    if scale.dim() == 1:
        # One for each column where a group has all rows, else one for each row.
        by_column = group_shape is not None and group_shape[0] == -1
        return scale.reshape(1, -1) if by_column else scale.reshape(-1, 1)
    tall, wide = (-(-size // count) for size, count in zip((rows, columns), scale.shape, strict=True))
    return scale.repeat_interleave(tall, 0)[:rows].repeat_interleave(wide, 1)[:, :columns]
