"""Loads the wheel's lowest extension into torch and computes with it, on whatever CPU this is; imports no vLLM.

Says something before it touches the wheel, so that a CPU that cannot even run torch is not held against it.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import torch  # type: ignore[import-not-found, unused-ignore]

ROWS, COLUMNS, EPSILON, TOLERANCE = 4, 256, 1e-6, 2e-2
LOWEST_FIRST = ("_C_AVX2", "_C")


def extension() -> Path:
    """Path of the extension for the lowest CPU level; the package is found without being imported."""
    spec = importlib.util.find_spec("vllm")
    folders = (spec.submodule_search_locations if spec else None) or ()
    files = [Path(folder) / f"{name}.abi3.so" for folder in folders for name in LOWEST_FIRST]
    return next(file for file in files if file.is_file())


def farthest(dtype: torch.dtype) -> float:
    """Largest relative difference between the extension's results and torch's own."""
    torch.manual_seed(0)
    operators = torch.ops._C  # noqa: SLF001 - the namespace into which the extension puts its operators
    both, weight = torch.randn(ROWS, 2 * COLUMNS).to(dtype), torch.randn(COLUMNS).to(dtype)
    left, right = both.float().chunk(2, dim=-1)
    product, scaled = (torch.empty(ROWS, COLUMNS, dtype=dtype) for _ in range(2))
    operators.silu_and_mul(product, both)
    operators.rms_norm(scaled, both[:, :COLUMNS].contiguous(), weight, EPSILON)
    expected = left * torch.rsqrt(left.pow(2).mean(-1, keepdim=True) + EPSILON) * weight.float()
    pairs = ((product, torch.nn.functional.silu(left) * right), (scaled, expected))
    return max(float(((one.float() - other).abs() / (1 + other.abs())).max()) for one, other in pairs)


def say(answer: dict[str, object]) -> None:
    """Prints and flushes a line, since the next instruction may end the process."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


started = time.monotonic()
torch.set_num_threads(1)
say({"probe": "torch", "capability": torch.backends.cpu.get_cpu_capability()})
path = extension()
torch.ops.load_library(path)
differences = {str(dtype): farthest(dtype) for dtype in (torch.float32, torch.bfloat16)}
say(
    {
        "probe": "emulated",
        "extension": path.name,
        "differences": differences,
        "agree": all(difference < TOLERANCE for difference in differences.values()),
        "seconds": round(time.monotonic() - started, 1),
    }
)
