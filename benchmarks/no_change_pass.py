"""How long the nightly rebuild thinks when nothing changed: 3 releases on 4 Pythons, 29 assets each.

The releases are miniatures behind a loopback index; their build requirements come from this machine's own index.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg

from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variants
from vllm_wheels.defs import internals, partitions, schedules, staleness
from vllm_wheels.defs.assets import UNVERSIONED
from vllm_wheels.defs.keys import RELEASE, earlier, key, kinds, needs, per_variant
from vllm_wheels_tests.fixtures import releases, torchlike
from vllm_wheels_tests.fixtures.index import IndexServer, Offer, upstream_index

LIMIT_SECONDS = 10.0
WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
RELEASES = ("0.32.0", "0.31.0", "0.30.0")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@contextmanager
def workplace(folder: Path) -> Iterator[BuildGraph]:
    """Settings that lead to the miniatures, as in the tests."""
    offers = [Offer(path=releases.sdist("unified", one, folder), requires_python=">=3.11,<3.15") for one in RELEASES]
    torchlike.cpu_wheels(folder / "torch")
    with IndexServer({"vllm": offers}, upstream=upstream_index()) as index:
        os.environ |= {
            "DAGSTER_HOME": str(folder),
            "VLLM_WHEELS_STATE_FOLDER": str(folder),
            "VLLM_WHEELS_INDEX__URL": index.url,
            "VLLM_WHEELS_INDEX__FIND_LINKS": json.dumps([str(folder / "torch")]),
            "VLLM_WHEELS_TORCH__BACKEND": "none",
            "VLLM_WHEELS_ONEDNN__ORIGIN": "path",
            "VLLM_WHEELS_ONEDNN__PATH": str(releases.ONEDNN),
            "VLLM_WHEELS_BUILDER__KIND": "local",
            "VLLM_WHEELS_BUILDER__MINIMUM_COMPILER": "12.2",
            "VLLM_WHEELS_PUBLISH__ARMED": "true",
        }
        (folder / "dagster.yaml").touch()
        yield new_graph()


def new_graph() -> BuildGraph:
    """One that remembers nothing, as each tick has it."""
    return build_graph(load(), say=lambda _: None)


def record(instance: dg.DagsterInstance, targets: list[Target]) -> None:
    """Records every asset of every partition as made from its inputs as they are."""
    for target in targets:
        for kind in kinds():
            for name in variants() if per_variant(kind) else [None]:
                code = rules()[kind].code_version(name) if kind in rules() else UNVERSIONED
                tags = internals.version_tags(data="1", code=code)
                made_from = needs(kind, name) | dict.fromkeys(earlier(kind, name), False)
                tags |= internals.provenance_tags(instance, made_from, target.partition)
                where = target.partition
                told = {"version": target.release, "repository": "real"} if kind == RELEASE else {}
                event = dg.AssetMaterialization(asset_key=key(kind, name), partition=where, tags=tags, metadata=told)
                instance.report_runless_asset_event(event)


def prepare(instance: dg.DagsterInstance, builds: BuildGraph) -> list[Target]:
    """Makes what planning reads, and records 12 partitions."""
    targets = [Target(release=release, python=python) for release in RELEASES for python in PYTHONS]
    for release in RELEASES:
        partitions.register(instance, release, *PYTHONS)
    for target in targets:
        for name in variants():
            for kind in builds.closure("compiled"):
                builds.ensure(kind, replace(target, variant=name))
    record(instance, targets)
    staleness.observe(instance, new_graph(), targets, print)
    record(instance, targets)
    return targets


def cpu_seconds() -> float:
    """What this process and the processes that it has waited for have computed so far."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, WHOSE))


def main() -> None:
    """Measures a look outside and a decision, when nothing changed."""
    from vllm_wheels.definitions import defs  # noqa: PLC0415 - it reads the settings

    graph = defs.resolve_asset_graph()
    with (
        tempfile.TemporaryDirectory() as folder,
        workplace(Path(folder)) as builds,
        dg.DagsterInstance.get() as instance,
    ):
        targets = prepare(instance, builds)
        began, cpu_before = time.perf_counter(), cpu_seconds()
        moved = staleness.observe(instance, new_graph(), targets, print)
        looked = time.perf_counter()
        requests = schedules.stale_requests(instance, graph, targets, load(), tick="benchmark")
        decided, cpu = time.perf_counter(), cpu_seconds() - cpu_before
    if moved or requests:
        message = f"something changed: {moved} {requests}"
        raise RuntimeError(message)
    print(
        f"{len(targets)} partitions: looked outside in {looked - began:.1f} s, decided in {decided - looked:.1f} s; "
        f"{cpu:.1f} s of CPU"
    )
    figures = {"look_s": round(looked - began, 2), "decide_s": round(decided - looked, 2), "limit_s": LIMIT_SECONDS}
    figures |= {"cpu_s": round(cpu, 2), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({"benchmark": "no_change_pass", "ratio": round((decided - began) / LIMIT_SECONDS, 3), **figures}))


if __name__ == "__main__":
    main()
