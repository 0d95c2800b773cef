"""Spoils a good wheel in many ways and counts which of them verification sees, without installing anything.

    python -m benchmarks.mutations [--random N] [--seed S] [--only GROUP] [--save]

Prints each mutation that is not caught, the counts by group, and one line of JSON; ``--save`` keeps that and writes
docs/mutations.md. A wheel is *caught* if a finding of severity error convicts it or leaves it open, or the file is
refused; else *warned* of, or *missed*. Random mutations change a byte, a line or a member of a wheel and write RECORD
anew, so that only what a check understands can catch them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.mutation_table import INFO, Mutation, files, table
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host.machine import cores
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.checks import run_check
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library

PAGE = Path(__file__).parents[1] / "docs" / "mutations.md"
COMMAND = "python -m benchmarks.mutations"
WARNINGS = "a warning, since such wheels work"
UNSEEN = {
    "METADATA": "a word of the description or a field that may be so",
    "WHEEL": "a field that nobody reads, or that may be so",
    ".py": "it still compiles, and what code does is seen when it runs",
    ".so": "most bytes are operands, strings and tables: the instructions are still those that it should have",
}
"""Why a random change of a member need not be seen, by the end of its name."""

CAUGHT, WARNED, MISSED = "caught", "warned", "missed"
MEMBERS = (
    "vllm/__init__.py",
    "vllm/_cpu_guard.py",
    "vllm/cli.py",
    "vllm/_C.abi3.so",
    f"{INFO}/METADATA",
    f"{INFO}/WHEEL",
)
ORDER = sorted(STATIC, key=lambda check: bool(check.commands))
"""Checks that start programs last: one conviction is enough."""


def judge(path: Path, settings: Settings) -> tuple[str, str]:
    """What becomes of a wheel, and the check that says so."""
    findings: list[Finding] = []
    try:
        with opened(path, settings=settings, runner=Runner()) as unpacked:
            for check in ORDER:
                findings.append(run_check(check, unpacked, earlier=[*findings, *_assumed(check.needs)]))
                if findings[-1].severity == "error" and findings[-1].verdict in {"convicted", "could-not-judge"}:
                    return CAUGHT, check.name
    except VllmWheelsError as error:
        return CAUGHT, f"refused: {error.why}"
    warnings = [each.check for each in findings if each.verdict == "convicted"]
    return (WARNED, ", ".join(warnings)) if warnings else (MISSED, "")


def _assumed(names: tuple[str, ...]) -> Iterator[Finding]:
    """Checks that others need, which may come later in this order."""
    for name in names:
        yield Finding(check=name, severity="error", verdict="passed", line="assumed")


def drawn(number: int, seed: int) -> Iterator[Mutation]:
    """Random mutations; the same from the same seed."""
    dice = random.Random(seed)  # noqa: S311 - to be drawn again, not to be guessed
    for index in range(number):
        name = dice.choice(MEMBERS)
        content = bytearray(_content(name))
        kind = dice.choice(("byte", "line", "cut", "double"))
        place = dice.randrange(len(content))
        if kind == "byte":
            content[place] ^= 1 << dice.randrange(8)
        elif kind == "cut":
            del content[place:]
        else:
            lines = bytes(content).splitlines(keepends=True)
            line = dice.randrange(len(lines))
            lines[line : line + 1] = [] if kind == "line" else [lines[line]] * 2
            content = bytearray(b"".join(lines))
        yield Mutation(
            group="random",
            name=f"{index}: {kind} of {name} at {place}",
            recipe=partial(files, {name: bytes(content)}),
            why=next(why for end, why in UNSEEN.items() if name.endswith(end)),
        )


def _content(name: str) -> bytes:
    good = Recipe()
    made = {"vllm/_C.abi3.so": library(), **good.contents(INFO)}[name]
    return made.encode() if isinstance(made, str) else bytes(made or b"")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What became of a mutation, and the checks that say so."""

    mutation: Mutation
    outcome: str
    by: str


@cache
def chosen(number: int, seed: int, group: str | None) -> tuple[Mutation, ...]:
    """The table and so many random mutations, or those of a group."""
    return tuple(each for each in (*table(), *drawn(number, seed)) if group in (None, each.group))


def seen(number: int, seed: int, group: str | None) -> Iterator[Seen]:
    """Judges mutations in processes of their own, since auditwheel changes the working folder; in their order."""
    mutations = chosen(number, seed, group)
    with TemporaryDirectory(prefix="mutations-") as folder, ProcessPoolExecutor(cores()) as pool:
        Path(folder, "index").mkdir()
        one = partial(_one, Path(folder), number, seed, group)
        for mutation, (outcome, by) in zip(mutations, pool.map(one, range(len(mutations))), strict=True):
            yield Seen(mutation=mutation, outcome=outcome, by=by)


def _one(folder: Path, number: int, seed: int, group: str | None, index: int) -> tuple[str, str]:
    settings = Settings(index={"url": (folder / "index").as_uri()})  # type: ignore[arg-type] - pydantic makes it of a dict
    place = folder / str(index)
    try:
        return judge(chosen(number, seed, group)[index].recipe().write(place), settings)
    finally:
        rmtree(place)


def counted(found: Iterable[Seen]) -> dict[str, Counter[str]]:
    """Outcomes by group."""
    counts: dict[str, Counter[str]] = {}
    for each in found:
        counts.setdefault(each.mutation.group, Counter())[each.outcome] += 1
    return counts


def page(result: Mapping[str, Any]) -> str:
    """The page about a kept result."""
    lines = [
        "# Mutations of a wheel\n",
        "How many of the ways to spoil a good wheel are seen without installing it: what the table",
        f"`benchmarks/mutation_table.py` names, and {result['random']} random ones of seed {result['seed']}.",
        "To repeat it:\n",
        f"    {COMMAND} --random {result['random']} --seed {result['seed']}\n",
        "Caught means an error, a refusal, or left open: never status 0.",
        f"Judged on {result['date']}, in {result['seconds']:.0f} s of a processor.\n",
        f"| group | {CAUGHT} | {WARNED} | {MISSED} |",
        "|---|---|---|---|",
        *(
            f"| {group} | {' | '.join(str(found.get(kind, 0)) for kind in (CAUGHT, WARNED, MISSED))} |"
            for group, found in result["counts"].items()
        ),
        "\n## What is not caught\n",
        "A warning forbids no release: what it tells of is bad style, or true of a wheel that works.\n",
        "| group | mutation | outcome | why |",
        "|---|---|---|---|",
        *(f"| {' | '.join(str(cell) for cell in row)} |" for row in result["uncaught"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Judges all mutations; status 1 where a spoiled wheel of the table is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="GROUP")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    found = []
    for each in seen(asked.random, asked.seed, asked.only):
        found.append(each)
        if each.outcome != CAUGHT:
            print(f"{each.outcome:7} {each.mutation.group}: {each.mutation.name}  {each.by}", flush=True)
    spent = os.times()
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "random": asked.random,
        "seed": asked.seed,
        "seconds": round(spent.user + spent.system + spent.children_user + spent.children_system, 1),
        "counts": counted(found),
        "uncaught": [_row(each) for each in found if each.outcome != CAUGHT],
    }
    for group, counts in counted(found).items():
        print(f"{group:10} {', '.join(f'{counts[kind]} {kind}' for kind in (CAUGHT, WARNED, MISSED))}")
    print(json.dumps(result))
    if asked.save:
        (RESULTS / "mutations.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        PAGE.write_text(page(result), "utf-8")
    return any(each.outcome == MISSED for each in found if not each.mutation.why)


def _row(each: Seen) -> list[str]:
    said = f"{each.by}: {WARNINGS}" if each.outcome == WARNED else each.mutation.why
    return [each.mutation.group, each.mutation.name.replace("|", "\\|"), each.outcome, said]


if __name__ == "__main__":
    sys.exit(main())
