"""Tokens per second of the variants' wheels, on the same small model and machine, in one run.

    python benchmarks/tokens.py WHEEL...

Every wheel is installed into an environment of its own, where the pipeline would try it too (this host, or a container
of the image that built it), and is measured in turns with the others; its fastest turn counts. A wheel whose
instructions this CPU lacks is named and left out. Variable LEAVE_OUT names torch packages that are not to be had here,
TURNS how often each wheel is measured (3 times).
Prints a table, the ratio to the first wheel, and one line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from vllm_wheels.core.builders.choose import choose
from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.engine.plan import ActionContext
from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.names import distributions
from vllm_wheels.core.settings import load
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify import locations as location
from vllm_wheels.core.verify.runs.installation import left_out
from vllm_wheels.core.verify.runs.models import COPY, write_table
from vllm_wheels.core.verify.runs.processor import lacking
from vllm_wheels.core.verify.test_run import HERE, INSTALLS, PROGRAMS, TestRun, sandboxed
from vllm_wheels.core.verify.test_runs import TEST_RUNS

TURNS = int(os.environ.get("TURNS", "3"))
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PROBE = Path(__file__).parent / "probes" / "tokens.py"
FIGURES = ("prompt_tokens_per_second", "tokens_per_second")


def variant_of(wheel: Path) -> str:
    """The variant that the file is named after."""
    name = WheelName.parse(wheel.name).distribution
    return next(variant for variant, called in distributions(load()).items() if called == name)


@cache
def builder() -> Builder:
    """Where wheels are tried that this host cannot run."""
    return choose(load(), Runner(), say)


def prepared(wheel: Path, folder: Path, *, unavailable: tuple[str, ...]) -> TestRun:
    """An environment with the wheel in it."""
    settings = load()
    folder.mkdir()
    context = ActionContext(stage=folder, settings=settings, runner=Runner(), find_builder=builder, say=say)
    named = WheelName.parse(wheel.name)
    test_run = TestRun(
        context=context,
        location=location.choose(wheel.name, smoke=settings.smoke, find_builder=builder),
        wheel=wheel,
        distribution=named.distribution,
        version=str(named.version),
        python=PYTHON,
        left_out=left_out(settings, unavailable=unavailable),
        floor=(),
    )
    installing = next(check for check in TEST_RUNS if check.name == INSTALLS)
    judgement = installing.judge(test_run.with_commands_of(installing))
    if judgement.verdict != "passed":
        sys.exit(f"{wheel.name}: {judgement.line}\n{judgement.evidence}")
    shutil.copy(PROBE, test_run.folder / "probes" / "measure.py")
    write_table(test_run)
    return test_run


def say(line: str) -> None:
    """Keeps the figures on standard output to themselves."""
    sys.stderr.write(f"{line}\n")


def measured(test_run: TestRun) -> Mapping[str, float]:
    """One start of vLLM in the environment."""
    probe = (f"{PROGRAMS}/python", "-I", f"{HERE}/probes/measure.py", COPY)
    finished = test_run.start(sandboxed(*probe, VLLM_CPU_KVCACHE_SPACE="1"))
    answers = [line for line in finished.output.splitlines() if line.startswith('{"probe": ')]
    if not answers:
        sys.exit(f"{test_run.wheel.name} did not answer:\n{finished.output[-3000:]}")
    answer: Mapping[str, float] = json.loads(answers[-1])
    return answer


def main() -> None:
    """Measures the wheels that the command line names."""
    wheels = {variant_of(path): path.absolute() for path in map(Path, sys.argv[1:])}
    able = {name: path for name, path in wheels.items() if not lacking(variants()[name].floor)}
    unavailable = tuple(os.environ.get("LEAVE_OUT", "").split())
    with TemporaryDirectory(prefix="tokens-", dir=load().state_folder) as temporary:
        test_runs = {
            name: prepared(path, Path(temporary) / name, unavailable=unavailable) for name, path in able.items()
        }
        turns = [{name: measured(test_run) for name, test_run in test_runs.items()} for _ in range(TURNS)]
    best = {name: {figure: max(turn[name][figure] for turn in turns) for figure in FIGURES} for name in able}
    first = best[next(iter(able))]
    print(f"| variant | {' | '.join(FIGURES)} | ratio |\n|---|---|---|---|")
    for name in wheels:
        if name in able:
            figures = best[name]
            ratio = figures[FIGURES[1]] / first[FIGURES[1]]
            print(f"| {name} | {figures[FIGURES[0]]:.0f} | {figures[FIGURES[1]]:.1f} | {ratio:.2f} |")
        else:
            print(f"| {name} | this CPU lacks {', '.join(lacking(variants()[name].floor))} | | |")
    print(json.dumps({"benchmark": "tokens", "cores": os.cpu_count(), "turns": turns, "best": best}))


if __name__ == "__main__":
    main()
