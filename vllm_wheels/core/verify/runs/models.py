"""Tiny models of all kinds answer, twice the same and as they should; models.toml says which there are."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.verify.checks import Check, Judgement, RunOptions, convicted_of, passed, skipped
from vllm_wheels.core.verify.finding import Outcome
from vllm_wheels.core.verify.runs.answers import convicting, judged
from vllm_wheels.core.verify.runs.probing import judge_failure, probe
from vllm_wheels.core.verify.test_run import CPU_PLATFORM, HERE, TestRun, answer, answer_lines

TABLE, ANSWERS = "models.toml", "answers.json"
PROBE, MAKER = "tiny_models.py", "checkpoints.py"
"""The probe, and the module that it imports; a file that a module names is part of the module's code hash."""

COPY = f"{HERE}/models.json"
PROCESSES = "--processes"
BATCH = 12
"""Models that one process runs, so that each command keeps far from its time limit."""

CHOSEN, EVERY = "chosen", "all"
REMEDY = "see smoke.log; look at the kernels that this model calls"
SECONDS_EACH = 10


@cache
def table() -> Mapping[str, Any]:
    """The content of models.toml."""
    return tomllib.loads(files(__package__).joinpath(TABLE).read_text("utf-8"))


@cache
def right_answers() -> Mapping[str, Any]:
    """What a model in float32 answers, computed by another program (``benchmarks/model_answers.py``)."""
    found: Mapping[str, Any] = json.loads(files(__package__).joinpath(ANSWERS).read_text("utf-8"))
    return found


def wanted(models: str) -> tuple[str, ...]:
    """Names of the models that ``smoke.models`` means: ``chosen``, ``all``, or names with commas between them.

    Raises:
        SettingsError: there is no such model.
    """
    known: Mapping[str, Any] = table()["models"]
    if models == EVERY:
        return tuple(known)
    if models == CHOSEN:
        return tuple(name for name, entry in known.items() if entry.get("chosen"))
    names = tuple(dict.fromkeys(name.strip() for name in models.split(",")))
    if strange := [name for name in names if name not in known]:
        what = f"there is no tiny model {strange[0]!r}"
        why = f"smoke.models names it; known are {', '.join(known)}"
        raise SettingsError(what, why=why, remedy=f"set smoke.models to {CHOSEN}, {EVERY}, or some of these names")
    return names


def _commands(options: RunOptions) -> tuple[Invocation, ...]:
    if not options.settings.smoke.generate:
        return ()
    names, entries = wanted(options.settings.smoke.models), table()["models"]
    alone = [name for name in names if entries[name].get("processes")]
    rest = [name for name in names if name not in alone]
    batches = [rest[start : start + BATCH] for start in range(0, len(rest), BATCH)]
    lines = [(PROCESSES, name) for name in alone] + [tuple(batch) for batch in batches]
    return tuple(command for line in lines for command in probe(PROBE, COPY, *line, VLLM_CPU_KVCACHE_SPACE="1"))


def _answer(test_run: TestRun) -> Judgement:
    if not test_run.commands:
        return skipped("smoke.generate is off")
    write_table(test_run)
    outcomes: list[Outcome] = []
    speed = 0.0
    for command in test_run.commands:
        finished = test_run.start(command)
        answers = [answer(line) for line in answer_lines(finished)]
        outcomes += (outcome_of(found) for found in answers)
        speed = speed or next((found["tokens_per_second"] for found in answers if "tokens_per_second" in found), 0.0)
        if finished.status != 0 or not answers:
            return replace(judge_failure(finished), outcomes=tuple(outcomes))
    return judgement(outcomes, tokens_per_second=speed)


def write_table(test_run: TestRun) -> None:
    """Puts models.toml where the probes find it, as JSON, which every Python reads."""
    (test_run.folder / "models.json").write_text(json.dumps(table()), "utf-8")


def outcome_of(found: Mapping[str, Any]) -> Outcome:
    """Judges a line that the probe printed."""
    name = found["model"]
    entry = table()["models"][name]
    return judged(name, entry, found, right_answers().get(entry.get("answer", entry["family"])))


def judgement(outcomes: Sequence[Outcome], **measures: float) -> Judgement:
    """The judgement over all models; one that crashed or answers wrongly convicts."""
    if faults := [f"{each.model} {each.shown}: {each.line}" for each in convicting(outcomes)]:
        return replace(convicted_of(faults, remedy=REMEDY), outcomes=tuple(outcomes), measures=measures)
    running = [each for each in outcomes if each.kind == "runs"]
    others = [f"{each.model} {each.shown}" for each in outcomes if each.kind != "runs"]
    beside = f"; {', '.join(others)}" if others else ""
    line = f"{len(running)} of {len(outcomes)} tiny models answer, twice the same and as they should{beside}"
    return replace(passed(line), outcomes=tuple(outcomes), measures=measures)


CHECKS: tuple[Check[TestRun], ...] = (
    Check(
        "generates-tokens",
        "let tiny models generate tokens",
        _answer,
        needs=(CPU_PLATFORM,),
        seconds=150,
        commands=_commands,
    ),
)
