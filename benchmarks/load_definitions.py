"""Loading the definitions against importing Dagster alone: a code location must not make anybody wait."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

RUNS = 7
LIMIT = 1.3
IMPORTS = {"dagster": "import dagster", "definitions": "import vllm_wheels.definitions"}


def seconds(statement: str) -> float:
    """How long a fresh interpreter takes for a statement, without its own start."""
    program = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


def main() -> None:
    """Measures both in turns and prints their ratio."""
    for statement in IMPORTS.values():
        seconds(statement)
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(RUNS):
        for name, statement in IMPORTS.items():
            times[name].append(seconds(statement))
    best = {name: min(found) for name, found in times.items()}
    ratio = best["definitions"] / best["dagster"]
    print(
        f"importing dagster {best['dagster']:.2f} s, loading the definitions {best['definitions']:.2f} s: {ratio:.2f}"
    )
    figures = {f"{name}_median_s": round(statistics.median(found), 3) for name, found in times.items()}
    print(
        json.dumps({"benchmark": "load_definitions", "ratio": round(ratio, 3), "limit": LIMIT, "runs": RUNS, **figures})
    )


if __name__ == "__main__":
    main()
