"""The nightly rebuild: what it requests, and what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import BuildError, VllmWheelsError
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.operations.tracked_releases import targets
from vllm_wheels.core.target import Target
from vllm_wheels.defs import assets, internals, partitions, schedules, staleness
from vllm_wheels.defs import held as held_back
from vllm_wheels.defs.keys import key, needs
from vllm_wheels_tests.defs.workplace import graph

NEWEST = ("0.34.0", "0.33.0", "0.32.0", "0.31.0")
LANE = ("avx512",)


@pytest.fixture
def instance(tmp_path):
    with dg.instance_for_test() as found:
        for release in NEWEST:
            partitions.register(found, release, "3.12", "3.13")
        yield found


@pytest.fixture
def settings(settings_environment, monkeypatch):
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__VARIANTS", '["avx512"]')
    monkeypatch.setattr(staleness, "observe", lambda *_: {})
    return configuration.load()


def record(instance, kind: str, partition: str, *, variant="avx512", data="1", code=None) -> None:
    """Records an artifact as made now, from its inputs as they are."""
    tags = internals.version_tags(data=data, code=code or rules()[kind].code_version(variant))
    event = dg.AssetMaterialization(
        asset_key=key(kind, variant),
        partition=partition,
        tags=tags | internals.provenance_tags(instance, needs(kind, variant), partition),
    )
    instance.report_runless_asset_event(event)


def record_all(instance, partition: str) -> None:
    for kind in rules():
        record(instance, kind, partition)


def requested(instance, settings, *chosen: str) -> dict[str, list[str]]:
    targets_of = [Target.parse(one) for one in chosen]
    builds = build_graph(settings, say=lambda _: None)
    found = schedules.stale_requests(instance, graph(), targets_of, builds, tick="tonight")
    return {request.partition_key: [key.to_user_string() for key in request.asset_selection] for request in found}


def test_missing_partition_is_requested_as_a_whole(instance, settings):
    """Of a release that was never built everything is requested, in one run."""
    assert requested(instance, settings, "3.12|0.34.0") == {
        "3.12|0.34.0": [
            *("source", "tools", "onednn", "patched/avx512", "torch_env", "metadata/avx512", "native/avx512"),
            *("compiled/avx512", "repaired/avx512", "wheel/avx512", "verification/avx512"),
        ]
    }


def test_up_to_date_partition_is_left_alone(instance, settings):
    """What is fresh is not requested; what is not, is, each partition in a run of its own."""
    record_all(instance, "3.12|0.34.0")
    found = requested(instance, settings, "3.12|0.34.0", "3.13|0.34.0", "3.12|0.33.0")
    assert set(found) == {"3.13|0.34.0", "3.12|0.33.0"}


def test_changed_code_is_requested_with_all_that_hangs_on_it(instance, settings):
    """A changed patch makes the metadata stale, and through it the wheel and its test_run; nothing above it."""
    record_all(instance, "3.12|0.34.0")
    record(instance, "metadata", "3.12|0.34.0", code="before the change")
    assert requested(instance, settings, "3.12|0.34.0") == {
        "3.12|0.34.0": ["metadata/avx512", "wheel/avx512", "verification/avx512"]
    }


def test_failed_assets_of_yesterday_are_requested_again(instance, settings):
    """What failed yesterday was not recorded, so tonight it is tried again, alone."""
    for kind in [kind for kind in rules() if kind != "verification"]:
        record(instance, kind, "3.12|0.34.0")
    assert requested(instance, settings, "3.12|0.34.0") == {"3.12|0.34.0": ["verification/avx512"]}


def held(builds, variant: str | None, *, key: str | None = None, what: str = "it broke") -> None:
    """Notes a failure of the night before."""
    owner = Target(release="0.34.0", python="3.12", variant=variant)
    builds.failures.note("compiled", owner, key, BuildError(what, why="line 3", remedy="mend it"))


def test_what_failed_is_left_alone_until_something_moves(instance, settings, monkeypatch):
    """A release that does not compile costs one run and one message, not one a night."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__VARIANTS", '["avx512", "baseline"]')
    monkeypatch.setattr(held_back, "_is_the_same", lambda _, failure, __: failure.key == "now")
    builds = build_graph(configuration.load(), say=lambda _: None)
    held(builds, "avx512", key="now")
    (asked,) = requested(instance, builds.settings, "3.12|0.34.0").values()
    assert {"source", "compiled/baseline"} <= set(asked)
    assert not any(name.endswith("/avx512") for name in asked)
    held(builds, "baseline", key="now")
    assert requested(instance, builds.settings, "3.12|0.34.0") == {}
    held(builds, "avx512", key="before something moved")
    assert any(name.endswith("/avx512") for name in requested(instance, builds.settings, "3.12|0.34.0")["3.12|0.34.0"])


def test_plan_that_fails_as_before_is_left_alone(settings):
    """Where not even a plan can be drawn up there is no key; the same words are the same failure."""
    target = Target(release="0.34.0", python="3.12")
    builds = build_graph(settings, say=lambda _: None)
    with pytest.raises(VllmWheelsError) as caught:
        builds.ensure("source", target)
    assert held_back.held_back(builds, target).keys() == {None}
    builds.failures.note("source", target, None, BuildError(f"not {caught.value.what}", why="", remedy=""))
    assert held_back.held_back(builds, target) == {}


def test_run_says_why_each_asset_is_made(instance, settings):
    """In the UI the tags of a run tell who asked, for what, and which input moved."""
    record_all(instance, "3.12|0.34.0")
    record(instance, "metadata", "3.12|0.34.0", code="before the change")
    target = Target(release="0.34.0", python="3.12")
    builds = build_graph(settings, say=lambda _: None)
    (found,) = schedules.stale_requests(instance, graph(), [target], builds, tick="tonight")
    assert found.tags["vllm-wheels/automatic"] == "nightly"
    assert found.tags["vllm-wheels/variants"] == "avx512"
    assert found.tags["why/metadata.avx512"] == "has a new code version"
    assert found.tags["why/verification.avx512"] == "wheel/avx512 is made again"


# A queued run of this test would need a whole code location around it.
@pytest.mark.parametrize("status", [one for one in schedules.UNFINISHED if one is not dg.DagsterRunStatus.QUEUED])
def test_partition_that_a_run_is_working_on_is_skipped(instance, settings, status):
    """Nobody starts a second run of what is queued or running."""
    tags = {schedules.PARTITION_TAG: "3.12|0.34.0"}
    instance.add_run(dg.DagsterRun(job_name="rebuild", run_id="1" * 8, status=status, tags=tags))
    assert requested(instance, settings, "3.12|0.34.0", "3.13|0.34.0").keys() == {"3.13|0.34.0"}


def test_partition_whose_run_ended_is_not_skipped(instance, settings):
    """A run that ended, however it ended, keeps nobody from trying again."""
    tags = {schedules.PARTITION_TAG: "3.12|0.34.0"}
    instance.add_run(dg.DagsterRun(job_name="rebuild", run_id="1" * 8, status=dg.DagsterRunStatus.FAILURE, tags=tags))
    assert requested(instance, settings, "3.12|0.34.0").keys() == {"3.12|0.34.0"}


def test_release_assets_are_requested_only_where_publishing_is_armed(instance, settings, monkeypatch):
    """Nothing is published by itself until somebody arms it."""
    assert key("release", "avx512") not in schedules.kept_up_to_date(settings)
    monkeypatch.setenv("VLLM_WHEELS_PUBLISH__ARMED", "true")
    assert key("release", "avx512") in schedules.kept_up_to_date(configuration.load())


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, {"0.34.0", "0.33.0", "0.32.0"}),
        ({"NEWEST_RELEASES": "1"}, {"0.34.0"}),
        ({"NEWEST_RELEASES": "2", "EXCLUDE": '["0.33.0"]'}, {"0.34.0", "0.32.0"}),
        ({"EXCLUDE": '[">=0.33"]'}, {"0.32.0", "0.31.0"}),
    ],
)
def test_window_holds_the_newest_releases(settings, monkeypatch, wishes, expected):
    """The newest N registered releases are kept up to date, without those that are excluded."""
    for name, value in wishes.items():
        monkeypatch.setenv(f"VLLM_WHEELS_AUTOMATION__{name}", value)
    current = configuration.load()
    store = Store(current.state_folder / "store")
    found = targets(NEWEST, pythons=("3.12",), settings=current, store=store)
    assert {target.release for target in found} == expected


def test_window_holds_the_pythons_that_a_release_supports(settings):
    """Which Pythons a release supports is asked of the index, while its source is not here."""
    store = Store(settings.state_folder / "store")
    found = targets(["0.32.0", "0.16.0"], pythons=partitions.PYTHONS, settings=settings, store=store)
    assert [(target.release, target.python) for target in found] == [
        *(("0.32.0", python) for python in ("3.11", "3.12", "3.13", "3.14")),
        *(("0.16.0", python) for python in ("3.10", "3.11", "3.12", "3.13")),
    ]


def evaluate(instance):
    """A tick of the schedule, as the daemon would do it."""
    from vllm_wheels.definitions import defs  # noqa: PLC0415 - it reads the test's settings

    schedule = defs.resolve_schedule_def("nightly")
    night, repository = datetime(2026, 11, 21, 2, tzinfo=UTC), defs.get_repository_def()
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=night, repository_def=repository
    ) as context:
        return schedule.evaluate_tick(context)


def test_tick_requests_runs_of_the_rebuild_job_by_partition(instance, settings, monkeypatch):
    """At night the daemon gets one request per stale partition, newest release first."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__PYTHONS", '["3.12"]')
    monkeypatch.setattr("vllm_wheels.core.operations.tracked_releases.supports", lambda *_: True)
    record_all(instance, "3.12|0.33.0")
    tick = evaluate(instance)
    assert [request.partition_key for request in tick.run_requests] == ["3.12|0.34.0", "3.12|0.32.0"]


def test_tick_without_anything_stale_is_skipped_with_the_reason(instance, settings, monkeypatch):
    """A quiet night says that it was one."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__PYTHONS", '["3.12"]')
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__NEWEST_RELEASES", "1")
    monkeypatch.setattr("vllm_wheels.core.operations.tracked_releases.supports", lambda *_: True)
    record_all(instance, "3.12|0.34.0")
    tick = evaluate(instance)
    assert (tick.run_requests, tick.skip_message) == (
        [],
        "nothing is stale in 1 partitions, or a run is at it, or it failed and nothing has moved since",
    )


def test_code_location_that_is_older_than_its_runs_asks_for_nothing(instance, settings, monkeypatch):
    """After an update, keys of the code that is loaded say nothing of what a run would make: it is to be reloaded."""
    monkeypatch.setattr(schedules, "LOADED", "before the update")
    tick = evaluate(instance)
    assert (tick.run_requests, tick.skip_message) == ([], schedules.UPDATED)


def test_no_step_waits_in_dagsters_pools():
    """Dagster's wait for a pool says nothing and cannot be interrupted; so what has to wait does so inside its step."""
    assert {one.op.pool for one in assets.all_assets()} == {None}
    assert {kind for kind, rule in rules().items() if rule.slot} == {"compiled", "verification"}
