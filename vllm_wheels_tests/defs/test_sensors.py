"""New releases are found, registered and requested; inputs that moved are noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.operations.tracked_releases import Announced, announced
from vllm_wheels.defs import automation, freshness, partitions, staleness
from vllm_wheels.defs.sensors import Memory, new_among
from vllm_wheels_tests.defs.test_schedules import record, record_all
from vllm_wheels_tests.fixtures import releases
from vllm_wheels_tests.fixtures.index import IndexServer, Offer

NOW = 1_800_000_000.0


@pytest.fixture
def index(tmp_path, monkeypatch, settings_environment):
    """An index of a test's own."""
    with IndexServer({"vllm": []}) as server:
        monkeypatch.setenv("VLLM_WHEELS_INDEX__URL", server.url)
        yield server


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


def offer(index, folder, version, **more) -> None:
    path = folder / f"vllm-{version}.tar.gz"
    path.write_bytes(version.encode())
    index.projects["vllm"].append(Offer(path=path, requires_python=">=3.12,<3.14", **more))


def tick(instance, cursor=None):
    """A tick of the sensor as the daemon does it: applies what it asks for, and returns it."""
    from vllm_wheels.definitions import defs  # noqa: PLC0415 - it reads the test's settings

    repository = defs.get_repository_def()
    sensor = repository.get_sensor_def("new_releases")
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, repository_def=repository, instance_ref=instance.get_ref()
    ) as context:
        found = sensor.evaluate_tick(context)
    for request in found.dynamic_partitions_requests:
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return found


def versions(found) -> list[str]:
    added = (key for request in found.dynamic_partitions_requests for key in request.partition_keys)
    return list(dict.fromkeys(key.partition("|")[2] for key in added))


def test_first_tick_takes_the_newest_release_only(index, instance, tmp_path):
    """A fresh installation registers one release, not thirty."""
    for version in ("0.31.0", "0.33.0", "0.32.0"):
        offer(index, tmp_path, version)
    found = tick(instance)
    assert versions(found) == ["0.33.0"]
    assert [request.partition_key for request in found.run_requests] == ["3.12|0.33.0", "3.13|0.33.0"]
    assert partitions.every(instance) == ["3.12|0.33.0", "3.13|0.33.0"]
    assert versions(tick(instance, found.cursor)) == []


def test_later_tick_takes_what_is_new(index, instance, tmp_path):
    """A release that appears later is registered and requested, in every variant, on the Pythons it supports."""
    offer(index, tmp_path, "0.32.0")
    cursor = tick(instance).cursor
    offer(index, tmp_path, "0.33.0")
    found = tick(instance, cursor)
    assert versions(found) == ["0.33.0"]
    requested = {key.to_user_string() for key in found.run_requests[0].asset_selection}
    assert {"source", "wheel/baseline", "wheel/amxbf16", "verification/avx512vnni"} <= requested
    assert not any(key.startswith("release/") for key in requested)


def test_unreachable_index_skips_the_tick_and_the_next_one_finds_the_release(index, instance, tmp_path):
    """An index that is down costs a tick, nothing else."""
    offer(index, tmp_path, "0.32.0")
    cursor = tick(instance).cursor
    offer(index, tmp_path, "0.33.0")
    with index.failing("vllm", "error"):
        found = tick(instance, cursor)
    assert (versions(found), found.run_requests) == ([], [])
    assert "asked again at the next tick" in found.skip_message
    assert versions(tick(instance, found.cursor or cursor)) == ["0.33.0"]


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, ["0.33.0", "0.32.0"]),
        ({"PRERELEASES": "true"}, ["0.34.0rc1", "0.33.0", "0.32.0"]),
        ({"EXCLUDE": '["0.33.0"]'}, ["0.32.0"]),
        ({"EXCLUDE": '["<0.33"]'}, ["0.33.0"]),
    ],
)
def test_flags_and_wishes_are_honoured(index, tmp_path, monkeypatch, wishes, expected):
    """Yanked releases and pre-releases are left out, and what the settings exclude."""
    for version in ("0.32.0", "0.33.0", "0.34.0rc1"):
        offer(index, tmp_path, version)
    offer(index, tmp_path, "0.33.1", yanked="broken")
    for name, value in wishes.items():
        monkeypatch.setenv(f"VLLM_WHEELS_AUTOMATION__{name}", value)
    assert [release.version for release in announced(configuration.load())] == expected


def test_wrong_exclusion_names_itself(index, tmp_path, monkeypatch):
    """A slip in the settings is told with the entry it is in."""
    offer(index, tmp_path, "0.32.0")
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__EXCLUDE", '["newest"]')
    with pytest.raises(SettingsError, match=r"automation\.exclude holds 'newest'"):
        announced(configuration.load())


def release(version: str, *, age_hours: float | None = 100.0) -> Announced:
    uploaded = None if age_hours is None else datetime.fromtimestamp(NOW, UTC) - timedelta(hours=age_hours)
    return Announced(version=version, requires_python=None, uploaded=uploaded)


def taken(found, memory, *, registered=(), now=NOW):
    new, memory = new_among(found, memory, configuration.load(), registered=registered, now=now)
    return [one.version for one in new], memory


def test_young_release_waits_for_its_age(settings_environment, monkeypatch):
    """A release is left alone until it is as old as the settings ask, then taken."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__MINIMUM_AGE_HOURS", "24")
    young = [release("0.33.0", age_hours=1), release("0.32.0")]
    first, memory = taken(young, Memory())
    assert first == ["0.32.0"]
    assert taken(young, memory)[0] == []
    later = [release("0.33.0", age_hours=25), release("0.32.0")]
    assert taken(later, memory)[0] == ["0.33.0"]


def test_age_of_a_git_tag_counts_from_when_it_was_first_seen(settings_environment, monkeypatch):
    """A tag tells no time, so its age is that of our first sight of it."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__MINIMUM_AGE_HOURS", "24")
    _, memory = taken([release("0.32.0")], Memory())
    both = [release("0.33.0", age_hours=None), release("0.32.0")]
    new, memory = taken(both, memory)
    assert new == []
    assert taken(both, memory, now=NOW + 25 * 3600)[0] == ["0.33.0"]


def test_lifted_exclusion_does_not_flood_an_installation(settings_environment):
    """Old releases that become visible at once are not taken, beyond those that are kept up to date anyway."""
    _, memory = taken([release("0.33.0")], Memory())
    many = [release(f"0.{minor}.0") for minor in range(33, 10, -1)]
    assert taken(many, memory, registered=["0.33.0"])[0] == ["0.32.0", "0.31.0"]


def test_tags_of_a_git_repository_are_releases_too(index, tmp_path, monkeypatch):
    """Where sources come from git, its tags count as releases, other tags do not."""
    repository = releases.git_repository("unified", "0.33.0", tmp_path / "repository")
    offer(index, tmp_path, "0.32.0")
    monkeypatch.setenv("VLLM_WHEELS_SOURCE__GIT_URL", str(repository))
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__GIT_TAGS", "true")
    with pytest.raises(SettingsError, match="releases are not taken from git tags"):
        announced(configuration.load())
    monkeypatch.setenv("VLLM_WHEELS_SOURCE__ORIGIN", "git")
    assert [one.version for one in announced(configuration.load())] == ["0.33.0", "0.32.0"]


def test_moved_inputs_are_named_and_left_to_the_night(settings_environment, instance, monkeypatch):
    """By day, what moved is observed and named; nothing is compiled for it."""
    partitions.register(instance, "0.32.0", "3.11")
    monkeypatch.setattr(staleness, "observe", lambda *_: {"3.11|0.32.0": ["upstream"]})
    _, sensor = automation.sensors(configuration.load())
    with dg.build_sensor_context(instance=instance) as context:
        found = sensor.evaluate_tick(context)
    assert found.run_requests == []
    assert found.skip_message == "moved, to be rebuilt by night: 3.11|0.32.0: upstream"


def test_newest_release_is_reported_once_it_is_complete(settings_environment, instance, monkeypatch):
    """The freshness of newest_release tells whether upstream's newest release is built and tried."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__VARIANTS", '["avx512"]')

    def report() -> bool:
        return freshness.report_newest(instance, "0.33.0", pythons=["3.12"], settings=configuration.load())

    partitions.register(instance, "0.33.0", "3.12")
    assert not report()
    record_all(instance, "3.12|0.33.0")
    assert report()
    assert not report()
    event = instance.get_latest_materialization_event(dg.AssetKey(freshness.NAME))
    assert event.asset_materialization.metadata["release"].value == "0.33.0"


def test_newest_release_is_not_complete_while_a_newer_wheel_has_no_verdict(settings_environment, instance, monkeypatch):
    """A verification speaks for the wheel that it was of, and not for the one that was built since."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__VARIANTS", '["avx512"]')
    monkeypatch.setattr(freshness, "SAID_AGAIN", timedelta(0))
    partitions.register(instance, "0.33.0", "3.12")
    record_all(instance, "3.12|0.33.0")
    given = {"pythons": ["3.12"], "settings": configuration.load()}
    assert freshness.report_newest(instance, "0.33.0", **given)
    record(instance, "wheel", "3.12|0.33.0", data="2")
    assert not freshness.report_newest(instance, "0.33.0", **given)


@pytest.mark.parametrize(("enabled", "status"), [("true", "RUNNING"), ("false", "STOPPED")])
def test_automation_starts_by_itself_only_where_it_is_enabled(settings_environment, monkeypatch, enabled, status):
    """Nothing is built by itself on a machine whose owner did not ask for it."""
    monkeypatch.setenv("VLLM_WHEELS_AUTOMATION__ENABLED", enabled)
    settings = configuration.load()
    started = [*automation.sensors(settings), *automation.schedules(settings)]
    assert {one.default_status.value for one in started} == {status}


def test_memory_survives_as_a_cursor():
    """What a sensor remembers goes through the database as text."""
    memory = Memory(first_seen={"0.33.0": NOW}, handled=("0.33.0",))
    assert Memory.parse(memory.cursor()) == memory
