"""Tokens per second of the variants' wheels beside upstream's own, with the same small models, machine and run.

    python benchmarks/tokens.py UPSTREAM.whl WHEEL...

Every wheel stands in an environment where the pipeline would try it too (this host, or a container of the image that
built it); all have the packages that the first of ours requires, so that only the wheel differs. For each model and
number of cores all wheels are loaded with vLLM's defaults, nothing preloaded by hand, and measure their rounds in
turns, so that other load on the machine meets all of them. A wheel whose instructions this CPU lacks is named and left
out.

Of upstream's wheel (its file is called ``vllm-...``) one file is replaced by ours, ``vllm/utils/cpu_triton_utils.py``:
without triton-cpu, which no index offers, 0.32.0 generates no token with its own. KV caches have 1 GB, so that all
wheels fit into memory. On one core the processor's time counts, of all processes of a wheel: other work on the machine
changes it little. On all cores it is the clock's.

Variables: MODELS and CORES choose some of those below, TURNS says how often each wheel measures (5 times), LEAVE_OUT
names torch packages that are not to be had here. Prints tables of medians, with the range in brackets and the median
of the ratios to the first wheel turn by turn, and one line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm_wheels.core.builders.choose import choose
from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.engine.plan import ActionContext
from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.names import distributions
from vllm_wheels.core.patches.fixes import STAND_INS
from vllm_wheels.core.settings import load
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify import locations as location
from vllm_wheels.core.verify.runs.installation import left_out
from vllm_wheels.core.verify.runs.processor import lacking
from vllm_wheels.core.verify.test_run import HERE, INSTALLS, PROGRAMS, TestRun, sandboxed
from vllm_wheels.core.verify.test_runs import TEST_RUNS

TURNS = int(os.environ.get("TURNS", "5"))
MODELS = os.environ.get("MODELS", "llama awq gptq w8a8 moe ngram").split()
CORES = os.environ.get("CORES", "1 all").split()
PYTHON = "3.11"
PROBE = Path(__file__).parent / "probes" / "tokens.py"
UPSTREAM = "upstream"
FIGURES = {
    "first_token": "s to the first token",
    "prompt": "prompt tokens/s",
    "alone": "tokens/s, one request",
    "together": "tokens/s, four requests",
}
SLOWER = ("first_token",)
"""Figures that are better where they are smaller."""

CLOCKS = {"1": "processor", "all": "clock"}
ROUND_SECONDS, LOOK_SECONDS = 300.0, 0.05


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model that is loaded by one wheel, and waits for its turns in a folder."""

    name: str
    folder: Path
    process: Future[Finished]

    def turn(self, number: int, cores: str) -> dict[str, float]:
        """One round, by the clock that counts."""
        (self.folder / f"turn-{number}").touch()
        self.wait(f"answer-{number}")
        answer: dict[str, dict[str, float]] = json.loads((self.folder / f"answer-{number}").read_text("utf-8"))
        return answer[CLOCKS[cores]]

    def is_ready(self) -> bool:
        """Waits until the model is loaded; a wheel that cannot run it is named, and left out of its table."""
        while not (self.folder / "ready").exists():
            if self.process.done():
                say(f"{self.name} does not run {self.folder.name}:\n{self.process.result().output[-3000:]}")
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def wait(self, file: str) -> None:
        """Waits for a file of the probe; ends the program where it does not come."""
        last = time.monotonic() + ROUND_SECONDS
        while not (self.folder / file).exists():
            if self.process.done() or time.monotonic() > last:
                output = self.process.result().output if self.process.done() else f"no {file}"
                sys.exit(f"{self.name} did not answer:\n{output[-3000:]}")
            time.sleep(LOOK_SECONDS)


def variant_of(wheel: Path) -> str:
    """The variant that the file is named after."""
    name = WheelName.parse(wheel.name).distribution
    if name == "vllm":
        return UPSTREAM
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
    return test_run


def beside(first: TestRun, wheel: Path, stage: Path) -> TestRun:
    """The same environment with another wheel in the place of the first; files of other packages are shared."""
    made = replace(first, context=replace(first.context, stage=stage), wheel=wheel)
    shutil.copytree(first.folder, made.folder, symlinks=True, copy_function=os.link)
    (packages,) = made.folder.glob("venv/lib/python*/site-packages")
    mended = (packages / STAND_INS).read_bytes()
    for path in packages.glob("vllm*"):
        shutil.rmtree(path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    if variant_of(wheel) == UPSTREAM:
        (packages / STAND_INS).write_bytes(mended)
    return made


def say(line: str) -> None:
    """Keeps the figures on standard output to themselves."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def start(test_run: TestRun, model: str, core: int | None, folder: Path) -> Finished:
    """Loads a model, on one core or on all, and answers turns until it is told to end."""
    bound = () if core is None else ("taskset", "-c", str(core))
    probe = (f"{PROGRAMS}/python", "-I", f"{HERE}/probes/measure.py", model, f"{HERE}/home/{folder.name}")
    return test_run.start(sandboxed(*bound, *probe, VLLM_CPU_KVCACHE_SPACE="1"))


def rounds(test_runs: Mapping[str, TestRun], model: str, cores: str) -> Iterator[dict[str, Any]]:
    """What each wheel measured in each turn, with the machine's load; the order is reversed with every turn."""
    with ThreadPoolExecutor(len(test_runs)) as pool:
        waiting = []
        for number, (name, test_run) in enumerate(test_runs.items()):
            folder = test_run.folder / "home" / f"turns-{model}-{cores}"
            folder.mkdir()
            # What runs there is nobody, in a sandbox that lends it this folder's parent alone.
            folder.chmod(0o777)
            # Each on the next core, so that they load at the same time; they measure one after the other.
            core = number % (os.cpu_count() or 1) if cores == "1" else None
            waiting.append(Loaded(name=name, folder=folder, process=pool.submit(start, test_run, model, core, folder)))
        try:
            able = [each for each in waiting if each.is_ready()]
            for number in range(TURNS):
                load_average = round(os.getloadavg()[0], 1)
                order = able if number % 2 else able[::-1]
                yield {"load": load_average, "wheels": {each.name: each.turn(number, cores) for each in order}}
        finally:
            for each in waiting:
                (each.folder / "end").touch()


def tables(results: Mapping[str, list[dict[str, Any]]], names: list[str]) -> str:
    """A table for each figure and number of cores: medians, ranges, ratios to the first wheel; above 1 is faster."""
    made = []
    for (figure, title), cores in product(FIGURES.items(), dict.fromkeys(key.split(", ")[1] for key in results)):
        chosen = {key.split(", ")[0]: turns for key, turns in results.items() if key.endswith(f", {cores}")}
        lines = [f"| {title}, cores: {cores} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for model, turns in chosen.items():
            lines.append(f"| {model} | {' | '.join(cell(turns, name, names[0], figure) for name in names)} |")
        made.append("\n".join(lines))
    return "\n\n".join(made)


def cell(turns: list[dict[str, Any]], name: str, first: str, figure: str) -> str:
    """Median, range and ratio of one figure."""
    if name not in turns[0]["wheels"]:
        return "does not run"
    found = [turn["wheels"][name][figure] for turn in turns]
    digits = 3 if figure in SLOWER else 0
    low, middle, high = (f"{value:.{digits}f}" for value in (min(found), statistics.median(found), max(found)))
    compared = "" if name == first or first not in turns[0]["wheels"] else f" {ratio(turns, name, first, figure):.2f}"
    return f"{middle} ({low}-{high}){compared}"


def ratio(turns: list[dict[str, Any]], name: str, first: str, figure: str) -> float:
    """Median over the turns of how many times as fast a wheel was as the first one."""
    pairs = [(turn["wheels"][name][figure], turn["wheels"][first][figure]) for turn in turns]
    return statistics.median(two / one if figure in SLOWER else one / two for one, two in pairs)


def main() -> None:
    """Measures the wheels that the command line names."""
    wheels = {variant_of(path): path.absolute() for path in map(Path, sys.argv[1:])}
    able = [name for name in wheels if name == UPSTREAM or not lacking(variants()[name].floor)]
    unavailable = tuple(os.environ.get("LEAVE_OUT", "").split())
    results: dict[str, list[dict[str, Any]]] = {}
    with TemporaryDirectory(prefix="tokens-", dir=load().state_folder) as temporary:
        own = next(name for name in able if name != UPSTREAM)
        first = prepared(wheels[own], Path(temporary) / own, unavailable=unavailable)
        test_runs = {
            name: first if name == own else beside(first, wheels[name], Path(temporary) / name) for name in able
        }
        for cores, model in product(CORES, MODELS):
            results[f"{model}, {cores}"] = list(rounds(test_runs, model, cores))
            say(tables({f"{model}, {cores}": results[f"{model}, {cores}"]}, able))
    print(tables(results, able))
    for name in (name for name in wheels if name not in able):
        print(f"{name}: this CPU lacks {', '.join(lacking(variants()[name].floor))}")
    print(json.dumps({"benchmark": "tokens", "cores": os.cpu_count(), "wheels": able, "results": results}))


if __name__ == "__main__":
    main()
