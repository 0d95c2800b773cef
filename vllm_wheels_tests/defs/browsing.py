"""A headless Chromium on the web UI, as a person opens it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vllm_wheels_tests.defs.running_ui import RunningUi

if TYPE_CHECKING:
    from playwright.sync_api import Page

WAIT_MS = 120_000
SETTLE_MS = 1500
SIZE = {"width": 1500, "height": 950}


def pictures_folder(otherwise: Path) -> Path:
    """Where screenshots go: the folder that the variable SCREENSHOTS names."""
    folder = Path(os.environ.get("SCREENSHOTS") or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def chromium(ui: RunningUi) -> Iterator[Page]:
    """A page that is let in, by the address which the command printed."""
    driving = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    with driving.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opened = browser.new_page(viewport=SIZE)
        opened.set_default_timeout(WAIT_MS)
        opened.goto(f"{ui.url}/?session={ui.secret}", wait_until="domcontentloaded")
        yield opened
        browser.close()


def visit(page: Page, address: str, *texts: str) -> set[str]:
    """Opens a page and waits for texts; returns those that it shows."""
    page.goto(address, wait_until="domcontentloaded")
    for text in texts:
        page.get_by_text(text, exact=True).first.wait_for()
    return {text for text in texts if page.get_by_text(text, exact=True).first.is_visible()}


def picture(page: Page, path: Path) -> None:
    """Takes a screenshot once the page has stopped moving."""
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=path)
