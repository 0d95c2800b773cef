"""Small ELF files whose instructions are known, made by the host's assembler."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

AVX2 = "vpaddd %ymm0, %ymm1, %ymm2"
FMA = "vfmadd231ps %ymm0, %ymm1, %ymm2"
AVX512 = "vpaddd %zmm0, %zmm1, %zmm2"
AVX512VL = "vpaddd %ymm16, %ymm17, %ymm18"
AVX512BW = "vpaddw %zmm0, %zmm1, %zmm2"
AVX512DQ = "vpmullq %zmm0, %zmm1, %zmm2"
VNNI = "vpdpbusd %zmm0, %zmm1, %zmm2"
BF16 = "vdpbf16ps %zmm0, %zmm1, %zmm2"
AMX_TILE = "tilezero %tmm0"
AMX_BF16 = "tdpbf16ps %tmm0, %tmm1, %tmm2"

CARRIERS = {
    "baseline": (AVX2, FMA),
    "avx512": (AVX2, FMA, AVX512, AVX512VL, AVX512BW, AVX512DQ),
    "avx512vnni": (AVX2, FMA, AVX512, AVX512VL, AVX512BW, AVX512DQ, VNNI),
    "avx512bf16": (AVX2, FMA, AVX512, AVX512VL, AVX512BW, AVX512DQ, VNNI, BF16),
    "amxbf16": (AVX2, FMA, AVX512, AVX512VL, AVX512BW, AVX512DQ, VNNI, BF16, AMX_TILE, AMX_BF16),
}
"""One instruction of every feature that a variant promises."""

FUNCTION = """\
    .text
    .globl {name}
    .type {name}, @function
{name}:
    .cfi_startproc
{body}
    ret
    .cfi_endproc
    .size {name}, .-{name}
"""


def shared_library(path: Path, functions: Sequence[Sequence[str]], *options: str) -> Path:
    """Assembles and links a stripped shared library with a function for each sequence of instructions."""
    texts = [
        FUNCTION.format(name=f"function_{number}", body="\n".join(f"    {line}" for line in body))
        for number, body in enumerate(functions)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-shared", "-nostdlib", "-s", "-x", "assembler", "-o", str(path), *options, "-"]
    subprocess.run(command, input="".join(texts), text=True, check=True, capture_output=True, timeout=60)
    return path
