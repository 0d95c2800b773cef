"""The checks of a verification in Dagster: shown as asset checks, and in the way of a release."""

from __future__ import annotations

import dagster as dg
import pytest

from vllm_wheels.core.verify import report as reports
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels.core.verify.test_runs import TEST_RUNS
from vllm_wheels.defs import checks, launch, partitions
from vllm_wheels.defs.keys import key
from vllm_wheels_tests.core import harness

KEY = key("verification", "baseline")
GOOD = Finding(check="record", severity="error", verdict="passed", line="3 entries", measures={"files": 3.0})
SKIPPED = Finding(check="sbom", severity="warning", verdict="skipped", line="no")
WARNING = Finding(check="size", severity="warning", verdict="convicted", line="too large", remedy="strip")
BAD = Finding(check="stripped", severity="error", verdict="convicted", line="debug", evidence="e", remedy="strip")


@pytest.fixture
def artifact(tmp_path, monkeypatch):
    def made(*findings):
        report = type("Report", (), {"findings": findings})
        monkeypatch.setattr(reports, "read_report", lambda _: report)
        return harness.artifact("verification", tmp_path, {})

    return made


def shown(artifact):
    return {each.check_name: each for each in checks.results(artifact, KEY, {spec.key for spec in checks.specs(KEY)})}


def test_every_check_is_an_asset_check():
    """In the UI I find each check of the report by its name."""
    names = {spec.name for spec in checks.specs(KEY)}
    assert names == {check.name.replace("-", "_") for check in (*STATIC, *TEST_RUNS)}
    assert checks.specs(key("wheel", "baseline")) == []


def test_only_what_forbids_a_release_stops_a_run():
    """A warning does not keep the release from running."""
    blocking = {spec.name: spec.blocking for spec in checks.specs(KEY)}
    assert blocking["stripped"]
    assert not blocking["size"]


def test_findings_become_results(artifact):
    """What passed is green, what was skipped too, a warning yellow, a conviction red."""
    found = shown(artifact(GOOD, SKIPPED, WARNING, BAD))
    assert {name: each.passed for name, each in found.items()} == {
        "record": True,
        "sbom": True,
        "size": False,
        "stripped": False,
    }
    assert found["size"].severity is dg.AssetCheckSeverity.WARN
    assert found["stripped"].severity is dg.AssetCheckSeverity.ERROR
    assert found["stripped"].metadata["remedy"].value == "strip"
    assert found["record"].metadata["files"].value == 3.0


def test_checks_that_nobody_asked_for_are_not_reported(artifact):
    """Whoever selects one check gets that one."""
    chosen = {dg.AssetCheckKey(KEY, "record")}
    assert [each.check_name for each in checks.results(artifact(GOOD, BAD), KEY, chosen)] == ["record"]


class Gate:
    """A verification and a release, of which a run makes one partition."""

    def __init__(self, instance, artifact):
        self.instance, self.released, self.artifact = instance, [], artifact
        partitions.register(instance, "0.32.0")

    def run(self, python, finding):
        """Verifies with that finding, and then releases if nothing is in the way."""
        made = self.artifact(finding)
        spec = dg.AssetSpec(KEY, partitions_def=partitions.PARTITIONS)

        @dg.multi_asset(specs=[spec], check_specs=checks.specs(KEY), can_subset=True, name="verified")
        def verified(context):
            results = list(checks.results(made, KEY, context.selected_asset_check_keys))
            yield dg.MaterializeResult(asset_key=KEY, check_results=results)

        @dg.asset(deps=[KEY], partitions_def=partitions.PARTITIONS)
        def release(context) -> None:
            self.released.append(context.partition_key)

        key = partitions.partition_key(f"{python}|0.32.0")
        return dg.materialize([verified, release], partition_key=key, instance=self.instance, raise_on_error=False)


@pytest.fixture
def gate(artifact):
    with dg.instance_for_test() as instance:
        yield Gate(instance, artifact)


@pytest.mark.parametrize(("finding", "released"), [(GOOD, True), (WARNING, True), (BAD, False)])
def test_conviction_stops_what_comes_after_it_in_a_run(gate, finding, released):
    """A run that would verify and release stops between the two, with the name of the check."""
    outcome = gate.run("3.11", finding)
    assert outcome.success is released
    assert bool(gate.released) is released
    if not released:
        failed = next(event for event in outcome.all_node_events if event.is_step_failure)
        error = launch._error(failed)  # noqa: SLF001 - its door, launch(), needs the whole graph
        assert error.exit_code == 80
        assert "stripped" in error.why


def test_conviction_in_one_partition_leaves_the_others_alone(gate):
    """What is wrong on one Python stops the release of that partition only, and each partition keeps its verdict."""
    outcomes = [gate.run(python, finding).success for python, finding in (("3.11", BAD), ("3.12", GOOD))]
    assert outcomes == [False, True]
    assert gate.released == ["3.12|0.32.0"]
    verdicts = {}
    for name in ("stripped", "record"):
        check = dg.AssetCheckKey(KEY, name)
        for each in gate.instance.event_log_storage.get_asset_check_execution_history(check, limit=9):
            if each.status.value != "PLANNED":
                verdicts[each.partition] = each.status.value
    assert verdicts == {"3.11|0.32.0": "FAILED", "3.12|0.32.0": "SUCCEEDED"}


def test_checks_of_the_graph_are_those_of_the_tables():
    """The list that the graph shows is the list of what is checked; json.dumps(checks.listing()) is its content."""
    assert checks._listed() == checks.listing()  # noqa: SLF001  # noqa: SLF001 - what the graph is made of
