"""Spoils a good wheel in many ways and counts which of them verification sees, without installing anything.

    python -m benchmarks.mutations [--random N] [--seed S] [--only GROUP]

Prints each mutation that is only warned of or missed, the counts by group, and one line of JSON. A wheel is *caught* if
a finding of severity error convicts it or the file is refused, *warned* of, or *missed*. Random mutations change a
byte, a line or a member of a wheel and write RECORD anew, so that only what a check understands can catch them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.mutation_table import INFO, Mutation, files, table
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.checks import run_check
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library

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
            chosen = dice.randrange(len(lines))
            lines[chosen : chosen + 1] = [] if kind == "line" else [lines[chosen]] * 2
            content = bytearray(b"".join(lines))
        yield Mutation(
            group="random", name=f"{index}: {kind} of {name} at {place}", recipe=files({name: bytes(content)})
        )


def _content(name: str) -> bytes:
    good = Recipe()
    made = {"vllm/_C.abi3.so": library(), **good.contents(INFO)}[name]
    return made.encode() if isinstance(made, str) else bytes(made or b"")


def main() -> int:
    """Judges all mutations; status 1 where a spoiled wheel of the table is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="GROUP")
    asked = parser.parse_args()
    mutations = [each for each in (*table(), *drawn(asked.random, asked.seed)) if asked.only in (None, each.group)]
    counts: dict[str, Counter[str]] = {}
    began = time.process_time()
    with TemporaryDirectory(prefix="mutations-") as folder:
        index = Path(folder, "index")
        index.mkdir()
        settings = Settings(index={"url": index.as_uri()})  # type: ignore[arg-type] - pydantic makes it of a dict
        for number, each in enumerate(mutations):
            outcome, by = judge(each.recipe.write(Path(folder, str(number))), settings)
            counts.setdefault(each.group, Counter())[outcome] += 1
            if outcome != (MISSED if each.why else CAUGHT):
                print(f"{outcome:7} {each.group}: {each.name}  {by}", flush=True)
    for group, counted in counts.items():
        print(f"{group:10} {', '.join(f'{counted[kind]} {kind}' for kind in (CAUGHT, WARNED, MISSED))}")
    print(json.dumps({"seed": asked.seed, "seconds": round(time.process_time() - began, 1), "counts": counts}))
    return any(counted[MISSED] for group, counted in counts.items() if group not in {"harmless", "random"})


if __name__ == "__main__":
    sys.exit(main())
