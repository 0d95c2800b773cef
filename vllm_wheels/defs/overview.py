"""The page for the morning: an asset whose newest materialization holds the matrix of all wheels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.operations.status import Cell, Status, following
from vllm_wheels.core.operations.tracked_releases import newest
from vllm_wheels.core.variants import variants
from vllm_wheels.defs import internals, staleness
from vllm_wheels.defs.keys import JUDGED, OVERVIEW, RELEASE, key
from vllm_wheels.defs.partitions import every
from vllm_wheels.defs.schedules import busy, kept_up_to_date

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

    from vllm_wheels.core.engine.failures import Failure
    from vllm_wheels.core.engine.graph import BuildGraph

WHEEL = "wheel"
SPEED = "tokens_per_second"
HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the database and the build graph know, by partition where not said otherwise."""

    made: Mapping[tuple[str, str], Mapping[str, internals.Made]]  # by kind and variant first
    failures: Mapping[tuple[str, str | None], Failure]  # by partition and variant
    stale: Mapping[str, Mapping[dg.AssetKey, str]]
    at_work: set[str]
    kept: set[str]
    nightly: float | None
    now: float

    def cell(self, release: str, python: str, variant: str) -> Cell:
        """One wheel."""
        bare = Cell(release=release, python=python, variant=variant)
        partition = bare.partition
        failure = self.failures.get((partition, variant)) or self.failures.get((partition, None))
        reasons = {
            asset.to_user_string(): why
            for asset, why in self.stale.get(partition, {}).items()
            if len(asset.path) == 1 or asset.path[1] == variant
        }
        found = self._as_recorded(bare)
        found = found.after(failure) if failure else found
        found = replace(
            found,
            working=partition in self.at_work,
            stale="; ".join(f"{asset}: {why}" for asset, why in reasons.items()) if found.wheel else "",
        )
        kept = partition in self.kept
        said = following(found, failure, kept=kept, nightly=self.nightly, now=self.now, reasons=reasons)
        return replace(found, following=said)

    def _as_recorded(self, bare: Cell) -> Cell:
        wheel, judged, released = (
            self.made[kind, bare.variant].get(bare.partition) for kind in (WHEEL, JUDGED, RELEASE)
        )
        if wheel is None:
            return bare
        current = judged if judged and judged.is_from(key(WHEEL, bare.variant), wheel) else None
        return replace(
            bare,
            state="passed" if current else "built",
            wheel=str(wheel.metadata.get("wheel", "")),
            megabytes=_number(wheel, "megabytes"),
            tokens_per_second=_number(current, SPEED) if current else None,
            made_at=wheel.at,
            published=(f"{released.metadata['version']} on {released.metadata['repository']}",) if released else (),
        )


def gather(instance: dg.DagsterInstance, builds: BuildGraph, graph: AssetGraph) -> Status:
    """The matrix as it is now; asks no server."""
    settings, now = builds.settings, time.time()
    made = {
        (kind, name): internals.newest(instance, key(kind, name), [key(WHEEL, name)] if kind == JUDGED else [])
        for kind in (WHEEL, JUDGED, RELEASE)
        for name in variants()
    }
    failures = {(failure.partition, failure.variant): failure for failure in builds.failures.all()}
    seen = {partition for found in made.values() for partition in found} | {partition for partition, _ in failures}
    wanted = [(release, python) for python, _, release in (each.partition("|") for each in every(instance))]
    followed = set(newest({release for release, _ in wanted}, settings))
    kept = [(release, python) for release, python in wanted if release in followed and _is_kept(python, builds)]
    known = _Known(
        made=made,
        failures=failures,
        # What was never made at all needs no resolver to be missing.
        stale=staleness.closure(instance, graph, seen & {_key(*each) for each in kept}, kept_up_to_date(settings)),
        at_work=busy(instance),
        kept={_key(*each) for each in kept},
        nightly=internals.next_tick(
            instance,
            "nightly",
            cron=settings.automation.nightly,
            timezone=settings.automation.timezone,
            by_default=settings.automation.enabled,
        ),
        now=now,
    )
    cells = tuple(known.cell(release, python, variant) for release, python in wanted for variant in variants())
    return Status(at=now, nightly=known.nightly, cells=cells)


def look(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One tick of the sensor: reports the matrix if anything changed, and each hour."""
    builds = build_graph(configuration.load(), say=context.log.info)
    now = mark(context.instance, builds)
    if now == context.cursor:
        return dg.SkipReason("nothing changed")
    assert context.repository_def is not None  # noqa: S101 - the daemon gives it
    report(context.instance, builds, gather(context.instance, builds, context.repository_def.asset_graph))
    context.update_cursor(now)
    return dg.SkipReason("reported")


def report(instance: dg.DagsterInstance, builds: BuildGraph, status: Status) -> None:
    """Materializes the asset, and writes the page that can be hosted."""
    page = builds.settings.state_folder / "status" / "index.html"
    write_atomically(page, status.as_html())
    metadata = {
        "matrix": dg.MetadataValue.md(status.as_markdown()),
        "page": dg.MetadataValue.path(str(page)),
        "json": dg.MetadataValue.json(status.as_json()),
        **{state.replace("-", "_"): dg.MetadataValue.int(count) for state, count in status.counts.items()},
    }
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=OVERVIEW, metadata=metadata))


def mark(instance: dg.DagsterInstance, builds: BuildGraph) -> str:
    """Changes with every run that begins or ends, every failure, every release, and every hour."""
    latest = instance.get_run_records(limit=1, order_by="update_timestamp")
    runs = [f"{record.dagster_run.run_id} {record.update_timestamp.timestamp()}" for record in latest]
    failures = [f"{failure.kind} {failure.partition} {failure.last}" for failure in builds.failures.all()]
    return " ".join([*runs, *failures, *every(instance), str(int(time.time()) // HOUR)])


def _is_kept(python: str, builds: BuildGraph) -> bool:
    chosen = builds.settings.automation.pythons
    return not chosen or python in chosen


def _key(release: str, python: str) -> str:
    return f"{python}|{release}"


def _number(made: internals.Made, name: str) -> float | None:
    value = made.metadata.get(name)
    return float(value) if isinstance(value, int | float) else None
