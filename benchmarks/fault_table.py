"""Injects all faults and writes how they ended into docs/reliability.md; ``python -m benchmarks.fault_table``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
HEAD = "| what breaks | how that run ends | the next, plain run |\n|---|---|---|\n"
LOOPBACK = re.compile(r"127\.0\.0\.1:\d+")
"""The address of a test's server, another one in each run."""

MARK = "<!-- written by benchmarks/fault_table.py -->\n"


def main() -> int:
    """Status of the tests; the table holds what was noted in any case."""
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder, "faults.jsonl")
        words = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-m", "", "vllm_wheels_tests/faults", *sys.argv[1:]]
        status = subprocess.run(words, cwd=ROOT, env={**os.environ, "FAULTS_TABLE": str(noted)}, check=False).returncode
        rows = [json.loads(line) for line in noted.read_text("utf-8").splitlines()]
    before = PAGE.read_text("utf-8").partition(MARK)[0]
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
    table = LOOPBACK.sub("...", table)
    PAGE.write_text(f"{before}{MARK}{HEAD}{table}", "utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
