# SPDX-License-Identifier: Apache-2.0
"""Says what the int4 and int8 kernels of this wheel can take.

vllm-wheels puts this file into wheels for processors with AVX512_VNNI and without AMX. Upstream asks there whether the
processor has AMX, because it compiles these kernels for AMX alone. They multiply by VNNI.
"""

from __future__ import annotations

from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]

FLOATS = (torch.bfloat16, torch.float16)
BLOCK = 128
"""Inputs that the int4 kernels take at a time, or those of one group where it is smaller."""

TILE = 32


def takes_int4(config: Any) -> bool:
    """Can a linear layer (an ``MPLinearLayerConfig``) multiply 4-bit weights by 8-bit activations."""
    size = config.partition_weight_shape[0]
    group = size if config.group_size == -1 else config.group_size
    block = min(group, BLOCK)
    fits = size % group == 0 and group % block == 0 and block % 4 == 0
    return fits and config.act_type in FLOATS and _has("int4_scaled_mm_cpu")


def takes_int8(n: int, k: int) -> bool:
    """Can a linear layer of a model that is being loaded multiply 8-bit weights (n, k) by 8-bit activations."""
    fits = n % TILE == 0 and k % TILE == 0
    return fits and torch.get_default_dtype() in FLOATS and _has("int8_scaled_mm_with_quant")


def has_experts() -> bool:
    """Are there kernels for experts with 4-bit and 8-bit weights."""
    return _has("fused_experts_cpu")


def _has(op: str) -> bool:
    return hasattr(torch.ops._C, op)  # noqa: SLF001 - upstream's own way
