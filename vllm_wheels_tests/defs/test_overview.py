"""The page for the morning says what the database and the build graph know, and is kept true."""

from __future__ import annotations

import time

import dagster as dg
import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine.failures import FIRST_PAUSE_SECONDS
from vllm_wheels.core.errors import BuildError, CannotVerifyError
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.target import Target
from vllm_wheels.defs import internals, overview, partitions, schedules
from vllm_wheels.defs.keys import OVERVIEW, key, needs
from vllm_wheels_tests.defs.workplace import graph

PARTITION = "3.12|0.34.0"
METADATA = {"wheel": {"wheel": "vllm_cpu.whl", "megabytes": 17.5}, "verification": {"tokens_per_second": 40.0}}


@pytest.fixture
def instance(settings_environment):
    with dg.instance_for_test() as found:
        partitions.register(found, "0.34.0", "3.12")
        yield found


@pytest.fixture
def builds(instance):
    return build_graph(configuration.load(), say=lambda _: None)


def record(instance, kind: str, variant: str, *, data="1") -> None:
    tags = internals.version_tags(data=data, code=rules()[kind].code_version(variant))
    event = dg.AssetMaterialization(
        asset_key=key(kind, variant),
        partition=PARTITION,
        metadata=METADATA.get(kind, {}),
        tags=tags | internals.provenance_tags(instance, needs(kind, variant), PARTITION),
    )
    instance.report_runless_asset_event(event)


def cells(instance, builds) -> dict:
    return {cell.variant: cell for cell in overview.gather(instance, builds, graph()).cells}


def test_each_wheel_has_its_state(instance, builds):
    """A night with a good, a convicted, a broken, an open and an untried wheel reads as that."""
    for kind in rules():
        for variant in ("baseline", "avx512", "avx512vnni"):
            record(instance, kind, variant)
    record(instance, "wheel", "avx512vnni", data="2")
    target = Target(release="0.34.0", python="3.12")
    convicted, broken = (
        BuildError("not what it claims", why="size", remedy=""),
        BuildError("broke", why="l3", remedy=""),
    )
    builds.failures.note("verification", Target.parse(PARTITION, "avx512"), "k", convicted, convicted=True)
    builds.failures.note("compiled", Target.parse(PARTITION, "avx512bf16"), "k", broken)
    no_amx = CannotVerifyError("open", why="no AMX", remedy="")
    builds.failures.note("verification", Target.parse(PARTITION, "amxbf16"), "k", no_amx)
    found = cells(instance, builds)
    assert {name: cell.state for name, cell in found.items()} == {
        "baseline": "passed",
        "avx512": "convicted",
        "avx512vnni": "built",
        "avx512bf16": "failed",
        "amxbf16": "could-not-judge",
    }
    assert (found["baseline"].megabytes, found["baseline"].tokens_per_second) == (17.5, 40.0)
    assert found["avx512bf16"].why == "compiled: broke (l3)"
    assert {cell.partition for cell in found.values()} == {target.partition}


def test_what_moved_and_what_comes_next_is_said(instance, builds, monkeypatch):
    """Of a stale wheel I see which input moved, and when it is rebuilt."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__ENABLED", "true")
    builds = build_graph(configuration.load(), say=lambda _: None)
    for kind in rules():
        record(instance, kind, "baseline")
    record(instance, "metadata", "baseline", data="2")
    found = cells(instance, builds)["baseline"]
    assert "wheel/baseline: metadata/baseline moved" in found.stale
    assert found.following.startswith("rebuilt at ")


def test_run_that_is_at_it_is_seen(instance, builds):
    """While a run works the wheels keep what they were, and say that somebody is at it."""
    for kind in rules():
        record(instance, kind, "baseline")
    tags = {schedules.PARTITION_TAG: PARTITION}
    instance.add_run(dg.DagsterRun(job_name="rebuild", run_id="1" * 8, status=dg.DagsterRunStatus.STARTED, tags=tags))
    found = cells(instance, builds)["baseline"]
    assert (found.state, found.following) == ("passed", "a run is at it")


def test_pause_after_a_fault_that_may_pass_is_shown(instance, builds):
    """Where the network was down I see from when on it is tried again."""
    record(instance, "wheel", "baseline")
    error = CannotVerifyError("open", why="no network", remedy="")
    builds.failures.note("verification", Target.parse(PARTITION, "baseline"), "k", error)
    (failure,) = builds.failures.all()
    assert failure.due == pytest.approx(time.time() + FIRST_PAUSE_SECONDS, abs=60)
    assert cells(instance, builds)["baseline"].following.startswith("tried again from ")


def look(instance, cursor=None):
    """A tick of the sensor, as the daemon does it; returns what it says and its cursor."""
    from vllm_wheels.definitions import defs  # noqa: PLC0415 - it reads the test's settings

    repository = defs.get_repository_def()
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, repository_def=repository, instance_ref=instance.get_ref()
    ) as context:
        found = repository.get_sensor_def("overview").evaluate_tick(context)
    return found.skip_message, found.cursor


def test_page_is_reported_when_something_changed(instance, builds):
    """The asset holds the matrix, is reported again after a change only, and its page lies below the state folder."""
    record(instance, "wheel", "baseline")
    said, cursor = look(instance)
    assert said == "reported"
    assert look(instance, cursor)[0] == "nothing changed"
    builds.failures.note("compiled", Target.parse(PARTITION, "avx512"), "k", BuildError("broke", why="", remedy=""))
    assert look(instance, cursor)[0] == "reported"
    event = instance.get_latest_materialization_event(dg.AssetKey(OVERVIEW))
    assert event.asset_materialization.metadata["failed"].value == 1
    assert "compiled: broke" in (builds.settings.state_folder / "status" / "index.html").read_text("utf-8")
