"""The web UI, driven as a person drives it; screenshots go to the folder that the variable SCREENSHOTS names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_wheels_tests.defs.browsing import chromium, picture, pictures_folder, visit
from vllm_wheels_tests.defs.running_ui import RunningUi, running_ui, until
from vllm_wheels_tests.fixtures.miniature import variables

pytestmark = pytest.mark.browser

PARTITION = "3.11|0.32.0"
# Of the variant that every processor can try.
WHEEL, VERIFICATION = "wheel/baseline", "verification/baseline"
GROUPS = {"baseline", "avx512", "avx512vnni", "avx512bf16", "amxbf16", "inputs", "shared"}
RUN_MS = 240_000
DRY_RUN = "resources:\n  build_mode:\n    config:\n      dry_run: true\n"
NEWEST = """{ assetNodeOrError(assetKey: {path: ["newest_release"]}) { ... on AssetNode {
  freshnessStatusInfo { freshnessStatus } assetMaterializations(limit: 1) { runId } } } }"""
MADE = """query Made($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
  assetMaterializations { partition } } } }"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Where screenshots go."""
    return pictures_folder(tmp_path_factory.mktemp("screenshots"))


@pytest.fixture(scope="module")
def ui(tmp_path_factory, miniature_index, torch_folder) -> Iterator[RunningUi]:
    """The servers over miniatures, of which one variant on one Python is to be kept up to date."""
    folder = tmp_path_factory.mktemp("ui")
    wanted = {
        **variables(folder, miniature_index, torch_folder),
        "VLLM_WHEELS_AUTOMATION__VARIANTS": '["baseline"]',
        "VLLM_WHEELS_AUTOMATION__PYTHONS": '["3.11"]',
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_HOME", raising=False)
        for name, value in wanted.items():
            patch.setenv(name, value)
        with running_ui(folder) as found:
            yield found


@pytest.fixture(scope="module")
def page(ui):
    """A page of a headless Chromium."""
    with chromium(ui) as opened:
        yield opened


def open_launchpad(page, ui: RunningUi, asset: str) -> None:
    page.goto(f"{ui.url}/assets/{asset}", wait_until="domcontentloaded")
    page.get_by_role("button", name="Materialize…").wait_for()
    page.locator("button:right-of(button:has-text('Materialize…'))").first.click()
    page.get_by_text("Open launchpad").first.click()
    page.get_by_role("button", name="Confirm").click()
    field = page.get_by_placeholder("Partition")
    field.click()
    # The list comes from the server; what is typed before is lost.
    page.get_by_text(PARTITION, exact=True).last.wait_for()
    field.fill(PARTITION)
    page.get_by_text(PARTITION, exact=True).last.click()


def launch(page) -> str:
    """Presses the launchpad's button; returns what the run's page says in the end."""
    page.get_by_role("button", name="Materialize").last.click()
    page.wait_for_url("**/runs/**")
    end = page.get_by_text("Success", exact=True).or_(page.get_by_text("Failure", exact=True)).first
    end.wait_for(timeout=RUN_MS)
    return str(end.inner_text())


@pytest.fixture(scope="module")
def verified(page, ui, pictures) -> str:
    """How the materialization of a verification, with all that it needs, ended in the launchpad."""
    open_launchpad(page, ui, VERIFICATION)
    ended = launch(page)
    picture(page, pictures / "run.png")
    return ended


def test_graph_has_a_group_per_variant(page, ui, pictures):
    """On the first page a person sees every variant, what they share, and what comes from outside."""
    assert visit(page, f"{ui.url}/asset-groups", *GROUPS) == GROUPS
    picture(page, pictures / "graph.png")


def test_dry_run_from_the_launchpad_builds_nothing(page, ui, pictures):
    """A dry run succeeds, and the wheel's page still says that it was never materialized."""
    open_launchpad(page, ui, WHEEL)
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(DRY_RUN)
    picture(page, pictures / "launchpad.png")
    assert launch(page) == "Success"
    picture(page, pictures / "dry-run.png")
    assert ui.ask(MADE, path=WHEEL.split("/"))["assetNodeOrError"]["assetMaterializations"] == []
    assert visit(page, f"{ui.url}/assets/{WHEEL}", "Never materialized")


def test_materialized_wheel_shows_its_figures_and_leads_to_report_and_log(page, ui, verified, pictures):
    """A person sees size, seconds and cache hits of a wheel, its log, and gets to its report by a click."""
    assert verified == "Success"
    labels = {"megabytes", "compile_seconds", "ccache_hit_rate", "build_log"}
    address = f"{ui.url}/assets/{WHEEL}"
    assert visit(page, address, *labels) == labels
    picture(page, pictures / "wheel.png")
    page.locator(f"tr:has-text('report') a[href*='/assets/{VERIFICATION}']").first.click()
    page.wait_for_url("**/verification/baseline**")
    assert visit(page, page.url, "verdict", "report") == {"verdict", "report"}
    picture(page, pictures / "verification.png")
    page.get_by_text("Show Markdown").or_(page.get_by_text("Show markdown")).first.click()
    picture(page, pictures / "report.png")


def test_numbers_plot_over_time(page, ui, verified, pictures):
    """Under Plots the numbers of a wheel are drawn."""
    visit(page, f"{ui.url}/assets/{WHEEL}", "megabytes")
    page.get_by_role("button", name="Plots").or_(page.get_by_text("Plots", exact=True)).first.click()
    page.locator("canvas").first.wait_for()
    picture(page, pictures / "plots.png")
    assert page.locator("canvas").count() >= 4


def test_checks_have_a_tab_with_their_verdicts(page, ui, verified, pictures):
    """Each check of the report stands under Checks, with what it found."""
    # The list draws only what fits into the window, so each is asked for.
    for name in ("installs", "imports", "forbidden_instructions"):
        assert visit(page, f"{ui.url}/assets/{VERIFICATION}?view=checks&checkDetail={name}", name) == {name}
    picture(page, pictures / "checks.png")


def test_partitions_are_those_that_can_be_made(page, ui, verified, pictures):
    """A person sees for which Python and release a wheel is there, and nothing that never could be."""
    assert visit(page, f"{ui.url}/assets/{WHEEL}?view=partitions", PARTITION) == {PARTITION}
    assert page.get_by_text("3.9|0.32.0", exact=True).count() == 0
    picture(page, pictures / "partitions.png")


def test_newest_release_has_a_freshness_badge(page, ui, verified, pictures):
    """Once the newest release is built and tried, the release sensor says so and the badge is green."""
    ui.start_sensor("new_releases")

    def status() -> bool:
        node = ui.ask(NEWEST)["assetNodeOrError"]
        return bool(node["assetMaterializations"]) and node["freshnessStatusInfo"]["freshnessStatus"] == "HEALTHY"

    assert until(status, RUN_MS / 1000, "the newest release to be fresh")
    page.goto(f"{ui.url}/assets/newest_release", wait_until="domcontentloaded")
    badge = page.get_by_text("Fresh", exact=True).or_(page.get_by_text("Passing", exact=True)).first
    badge.wait_for()
    picture(page, pictures / "freshness.png")
    assert badge.is_visible()
