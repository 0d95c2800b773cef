"""What the running web UI says of a night with a good, a convicted, a broken and an open wheel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.errors import BuildError
from vllm_wheels.core.target import Target
from vllm_wheels.core.verify.gate import OpenVerdictError
from vllm_wheels.defs import home, launch, making, partitions
from vllm_wheels.defs.keys import JUDGED, key
from vllm_wheels.defs.resources import BuildOptions
from vllm_wheels_tests.core import harness
from vllm_wheels_tests.defs.browsing import chromium, picture, pictures_folder, visit
from vllm_wheels_tests.defs.running_ui import RunningUi, running_ui
from vllm_wheels_tests.defs.test_verification_checks import BAD, GOOD, OPEN, SKIPPED, report
from vllm_wheels_tests.fixtures.miniature import variables

pytestmark = pytest.mark.servers

TARGET = Target(release="0.32.0", python="3.11")
FINDINGS = {"baseline": (GOOD, SKIPPED), "avx512": (GOOD, BAD), "amxbf16": (GOOD, OPEN)}
BROKEN = "avx512vnni"
NIGHT = (*FINDINGS, BROKEN)
LIGHTS = """query Lights($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
  assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    status evaluation { success severity description } } } } } } } }"""


@dataclass
class Night:
    """The web UI after it, and the errors that its run ended with."""

    ui: RunningUi
    failures: tuple

    def partition(self, variant: str) -> str:
        """Colour of a verification's partition."""
        found = self._node(variant)["assetPartitionStatuses"]
        if TARGET.partition in found["failedPartitions"]:
            return "failed"
        return "materialized" if TARGET.partition in found["materializedPartitions"] else "missing"

    def check(self, variant: str, name: str) -> str | None:
        """Light of a check; None where it has none."""
        (found,) = [each for each in self._node(variant)["assetChecksOrError"]["checks"] if each["name"] == name]
        evaluation = (found["executionForLatestMaterialization"] or {}).get("evaluation")
        return evaluation and ("green" if evaluation["success"] else evaluation["severity"])

    def _node(self, variant: str) -> dict:
        return self.ui.ask(LIGHTS, path=[JUDGED, variant])["assetNodeOrError"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where screenshots go."""
    return pictures_folder(tmp_path_factory.mktemp("screenshots"))


@pytest.fixture(scope="module")
def page(night):
    """A page of a headless Chromium."""
    with chromium(night.ui) as opened:
        yield opened


@pytest.fixture(scope="module")
def night(tmp_path_factory, miniature_index, torch_folder) -> Iterator[Night]:
    """A run of the command that verifies four wheels, and then the web UI on the same database."""
    folder = tmp_path_factory.mktemp("night")

    def ensure(_builds, _kind, target):
        if target.variant == BROKEN:
            what = "the build ended with status 1"
            raise BuildError(what, why="x.cpp:3: error", remedy="read the log")
        said = report(*FINDINGS[target.variant])
        if said.verdict == "could-not-judge":
            raise OpenVerdictError(said)
        return harness.artifact(JUDGED, folder / target.variant, {"verdict": said.verdict})

    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(folder, miniature_index, torch_folder).items():
            patch.setenv(name, value)
        patch.delenv("DAGSTER_HOME", raising=False)
        with patch.context() as faked:
            faked.setattr(BuildGraph, "ensure", ensure)
            faked.setattr(making, "deliver", lambda *_: None)
            faked.setattr(making, "deliver_open", lambda *_: None)
            faked.setattr(making, "read_report", lambda where: report(*FINDINGS[where.name]))
            faked.setattr(making.report, "metadata", lambda _: {})
            instance = home.instance(configuration.load())
            partitions.register(instance, TARGET.release, TARGET.python)
            done = launch.launch(
                TARGET,
                [key(JUDGED, variant) for variant in NIGHT],
                instance=instance,
                options=BuildOptions(),
                dry_run=False,
                say=lambda _: None,
            )
        with running_ui(folder) as ui:
            yield Night(ui=ui, failures=done.failures)


def test_partition_is_green_only_where_the_wheel_has_passed(night):
    """Neither a convicted nor an open nor a broken wheel is green."""
    colours = {variant: night.partition(variant) for variant in NIGHT}
    # Whatever a failed run left unmade is failed to Dagster; in a run without other failures the open one is missing.
    failed = dict.fromkeys(("avx512", "amxbf16", "avx512vnni"), "failed")
    assert colours == {"baseline": "materialized", **failed}


def test_checks_have_the_lights_of_the_report(night):
    """Passed is green, convicted an error, what could not be judged a warning; skipped has no light."""
    assert night.check("baseline", "record") == "green"
    assert night.check("avx512", "stripped") == "ERROR"
    assert night.check("amxbf16", "imports") == "WARN"
    assert night.check("baseline", "sbom") is None


def test_command_ends_with_the_errors_that_the_page_shows(night):
    """Exit statuses say the same: a conviction and a failed build, and nothing for the open verdict."""
    assert sorted(failure.exit_code for failure in night.failures) == [70, 80]


@pytest.mark.parametrize("variant", NIGHT)
def test_page_of_a_verification_says_in_the_browser_what_became_of_it(night, page, pictures, variant):
    """Who opens the page in the morning sees no green but for the wheel that has passed."""
    good = variant == "baseline"
    said = {f"Materialized ({int(good)})", f"Failed ({int(not good)})"}
    assert visit(page, f"{night.ui.url}/assets/{JUDGED}/{variant}?view=partitions", *said) == said
    picture(page, pictures / f"night-{variant}.png")


@pytest.mark.parametrize(("variant", "check"), [("avx512", "stripped"), ("amxbf16", "imports")])
def test_page_of_a_check_shows_in_the_browser_what_it_found(night, page, pictures, variant, check):
    """The sentence of the report stands where the light is."""
    address = f"{night.ui.url}/assets/{JUDGED}/{variant}?view=checks&checkDetail={check}"
    assert visit(page, address, check) == {check}
    picture(page, pictures / f"night-{variant}-{check}.png")


def test_graph_has_the_same_lights(night, page, pictures):
    """One picture with a good, a convicted, a broken and an open wheel."""
    lanes = {f"{lane}" for lane in NIGHT}
    assert visit(page, f"{night.ui.url}/asset-groups", *lanes) == lanes
    picture(page, pictures / "night-graph.png")
