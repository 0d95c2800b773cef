"""Breaks each kernel that a tiny model calls, one at a time, and tells which of them the trial would not notice.

    python benchmarks/zeroed_kernels.py PYTHON [MODEL...]

PYTHON is that of an environment with vLLM. A broken kernel gives zeros. Ends with status 1 where one was not noticed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.verify.runs.answers import convicting
from vllm_wheels.core.verify.runs.installation import PROBES
from vllm_wheels.core.verify.runs.models import PROBE, outcome_of, table, wanted
from vllm_wheels.core.verify.test_run import answer, answer_lines

LIMIT_SECONDS = 3600.0


def main() -> None:
    """Prints a line for each kernel of each model."""
    python, *models = sys.argv[1:]
    unnoticed = 0
    with TemporaryDirectory() as folder:
        path = Path(folder, "models.json")
        path.write_text(json.dumps(table()), "utf-8")
        for name in models or wanted("all"):
            argv = [python, "-I", str(PROBES / PROBE), str(path), "--zero", "every", name]
            environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
            finished = Runner().run(argv, env=environment, timeout_seconds=LIMIT_SECONDS, keep_output=True, quiet=True)
            for found in map(answer, answer_lines(finished)):
                outcome = outcome_of(found)
                noticed = not found["zeroed"] or bool(convicting([outcome]))
                unnoticed += not noticed
                said = found["zeroed"] or "intact"
                sys.stdout.write(f"{name} {said}: {outcome.kind}{'' if noticed else ', NOT NOTICED'}: {outcome.line}\n")
                sys.stdout.flush()
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
