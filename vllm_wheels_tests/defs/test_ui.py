"""The web UI, driven as a person drives it; screenshots go to the folder that VLLM_WHEELS_SCREENSHOTS names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_wheels_tests.defs.running_ui import RunningUi, running_ui

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

PARTITION = "3.11|0.32.0"
ASSET = "wheel/avx512"
WAIT_MS = 60_000
RUN_MS = 240_000
SIZE = {"width": 1500, "height": 950}
DRY_RUN = "resources:\n  build_mode:\n    config:\n      dry_run: true\n"


@pytest.fixture(scope="module")
def pictures() -> Path:
    """Where screenshots go."""
    folder = Path(os.environ.get("SCREENSHOTS", "/tmp/vllm-wheels-screenshots"))  # noqa: S108 - for a person to look at
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def ui(settings_environment, tmp_path) -> Iterator[RunningUi]:
    with running_ui(tmp_path) as found:
        yield found


@pytest.fixture
def page(ui):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport=SIZE)
        opened.set_default_timeout(WAIT_MS)
        yield opened
        browser.close()


def open_launchpad(page, ui: RunningUi) -> None:
    page.goto(f"{ui.url}/assets/{ASSET}", wait_until="domcontentloaded")
    page.get_by_role("button", name="Materialize…").wait_for()
    page.locator("button:right-of(button:has-text('Materialize…'))").first.click()
    page.get_by_text("Open launchpad").first.click()
    page.get_by_role("button", name="Confirm").click()
    field = page.get_by_placeholder("Partition")
    field.click()
    # The list comes from the server; what is typed before is lost.
    page.get_by_text("3.9|0.32.0", exact=True).last.wait_for()
    field.fill(PARTITION)
    page.get_by_text(PARTITION, exact=True).last.click()


def launch(page, picture: Path) -> None:
    """Presses the launchpad's button and waits until the run's page says that it went well."""
    page.get_by_role("button", name="Materialize").last.click()
    page.wait_for_url("**/runs/**")
    page.get_by_text("Success", exact=True).first.wait_for(timeout=RUN_MS)
    page.wait_for_timeout(2000)
    page.screenshot(path=picture)


def test_person_sees_the_graph_plans_a_wheel_builds_it_and_sees_what_came_out(page, ui, pictures):
    """A person opens the graph, dry-runs a wheel, materializes it, and reads size, seconds and report of it."""
    page.goto(f"{ui.url}/asset-groups", wait_until="domcontentloaded")
    for group in ("baseline", "avx512", "avx512vnni", "avx512bf16", "amxbf16", "inputs", "shared"):
        page.get_by_text(group, exact=True).first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=pictures / "graph.png")

    open_launchpad(page, ui)
    editor = page.locator(".CodeMirror").first
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(DRY_RUN)
    page.screenshot(path=pictures / "launchpad.png")
    launch(page, pictures / "dry-run.png")
    page.goto(f"{ui.url}/assets/{ASSET}", wait_until="domcontentloaded")
    page.get_by_text("Never materialized").first.wait_for()

    open_launchpad(page, ui)
    launch(page, pictures / "run.png")
    page.goto(f"{ui.url}/assets/{ASSET}?partition={PARTITION}", wait_until="domcontentloaded")
    page.get_by_text("megabytes", exact=True).first.wait_for()
    page.get_by_text("ccache_hit_rate", exact=True).first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=pictures / "wheel.png")
    page.goto(f"{ui.url}/assets/metadata/avx512?view=partitions", wait_until="domcontentloaded")
    page.get_by_text("0.32.0").first.wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=pictures / "partitions.png")
