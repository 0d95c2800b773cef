"""How much a large database costs: 40 releases on 4 Pythons, 5 variants each, all built.

Measured in CPU seconds of this process: the page for the morning, the tick of its sensor when nothing changed, and the
nightly decision.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from benchmarks.common import RESULTS
from benchmarks.no_change_pass import cpu_seconds, new_graph, record
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variants
from vllm_wheels.defs import overview, partitions, schedules
from vllm_wheels.defs.sqlite import kept_open

LIMIT_SECONDS = 30.0
RELEASES = tuple(f"0.{number}.0" for number in range(20, 60))
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def measured(work: Callable[[], object]) -> float:
    """CPU seconds that something takes."""
    before = cpu_seconds()
    work()
    return round(cpu_seconds() - before, 1)


def main() -> None:
    """Fills a database and measures."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DAGSTER_HOME": folder, "VLLM_WHEELS_STATE_FOLDER": folder}
        Path(folder, "dagster.yaml").touch()
        from vllm_wheels.definitions import defs  # noqa: PLC0415 - it reads the settings

        graph = defs.resolve_asset_graph()
        with dg.DagsterInstance.get() as instance, kept_open():
            for release in RELEASES:
                partitions.register(instance, release, *PYTHONS)
            record(instance, [Target(release=release, python=python) for release in RELEASES for python in PYTHONS])
            kept = [Target(release=release, python=python) for release in RELEASES[-3:] for python in PYTHONS]
            seconds = {
                "page": measured(lambda: overview.gather(instance, new_graph(), graph)),
                "unchanged_tick": measured(lambda: overview.mark(instance, new_graph())),
                "nightly_decision": measured(
                    lambda: schedules.stale_requests(instance, graph, kept, new_graph(), tick="tonight")
                ),
            }
    wheels = len(RELEASES) * len(PYTHONS) * len(variants())
    whole = sum(seconds.values())
    print(f"{wheels} wheels: {seconds} s of CPU, {whole:.1f} s together; limit {LIMIT_SECONDS:.0f} s")
    result = {"wheels": wheels, **seconds, "together": round(whole, 1), "limit": LIMIT_SECONDS}
    (RESULTS / "scale.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if whole > LIMIT_SECONDS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
