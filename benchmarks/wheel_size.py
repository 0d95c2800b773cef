"""Figure G: size of each wheel: at most 20 MB, and 25 MB for ``amxbf16``.

python benchmarks/wheel_size.py [--save] WHEEL...
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.names import distributions
from vllm_wheels.core.settings import load

MEGABYTE = 1e6
LIMIT, LIMITS = 20.0, {"amxbf16": 25.0}
RESULT = Path(__file__).parent / "results" / "wheel_size-real.json"


def main() -> None:
    """Weighs the wheels that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULT}")
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    given = parser.parse_args()
    names = {distribution: variant for variant, distribution in distributions(load()).items()}
    found = []
    for wheel in given.wheels:
        variant = names[WheelName.parse(wheel.name).distribution]
        size, limit = wheel.stat().st_size / MEGABYTE, LIMITS.get(variant, LIMIT)
        found.append({"variant": variant, "wheel": wheel.name, "megabytes": round(size, 1), "limit": limit})
        print(f"{size:6.1f} MB of {limit:.0f}  {wheel.name}")
    ratios = [entry["megabytes"] / entry["limit"] for entry in found]
    whole = {"benchmark": "wheel_size", "value": round(max(ratios), 3), "limit": 1.0, "wheels": found}
    print(json.dumps(whole))
    if given.save:
        RESULT.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
    sys.exit(max(ratios) > 1)


if __name__ == "__main__":
    main()
