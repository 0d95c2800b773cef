"""The measured attack in a real browser: a page of another site asks the web UI to change something."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from vllm_wheels_tests.defs.running_ui import RunningUi, running_ui

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

SENSOR = "new_releases"
SELECTOR = {"repositoryLocationName": "vllm_wheels", "repositoryName": "__repository__", "sensorName": SENSOR}
START = """mutation { startSensor(sensorSelector: {repositoryLocationName: "vllm_wheels",
 repositoryName: "__repository__", sensorName: "new_releases"}) { __typename } }"""
STATUS = """query Status($s: SensorSelector!) { sensorOrError(sensorSelector: $s) {
 ... on Sensor { sensorState { status } } } }"""
WAIT_MS = 60_000

PAGE = """<html><body><h1>kittens</h1><img src="{ui}/graphql?query={query}">
<iframe name="hidden"></iframe>
<form id="form" method="post" enctype="text/plain" target="hidden" action="{ui}/graphql?query={query}"></form>
<script>
const done = [];
const quiet = promise => promise.catch(() => null);
async function attack() {{
  document.getElementById("form").submit();
  await quiet(fetch("{ui}/graphql?query={query}", {{mode: "no-cors", credentials: "include"}}));
  await quiet(fetch("{ui}/graphql?query={query}", {{method: "POST", mode: "no-cors", credentials: "include"}}));
  await quiet(fetch("{ui}/graphql", {{method: "POST", credentials: "include",
    headers: {{"Content-Type": "application/json"}}, body: JSON.stringify({{query: {text}}})}}));
  const opened = await new Promise(resolve => {{
    const socket = new WebSocket("{socket}/graphql", "graphql-ws");
    socket.onopen = () => resolve(true);
    socket.onerror = () => resolve(false);
  }});
  document.body.dataset.done = String(opened);
}}
attack();
</script></body></html>
"""


@pytest.fixture
def ui(settings_environment, tmp_path) -> Iterator[RunningUi]:
    with running_ui(tmp_path) as found:
        yield found


@pytest.fixture
def evil(ui, tmp_path) -> Iterator[str]:
    """A page on another port, which browsers take for the same site: cookies go along."""
    folder = tmp_path / "evil"
    folder.mkdir()
    filled = PAGE.format(ui=ui.url, query=quote(START), text=json.dumps(START), socket=ui.url.replace("http", "ws"))
    Path(folder, "index.html").write_text(filled)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def status(ui: RunningUi) -> str:
    return ui.ask(STATUS, s=SELECTOR)["sensorOrError"]["sensorState"]["status"]


def test_page_of_another_site_changes_nothing_and_our_own_page_works(ui, evil):
    """With the UI open in the same browser, a page elsewhere tries GET, forms, scripts and a websocket in vain."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    assert status(ui) == "STOPPED"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context()
        own = context.new_page()
        own.set_default_timeout(WAIT_MS)
        own.goto(f"{ui.url}/?session={ui.secret}", wait_until="domcontentloaded")
        own.get_by_text("Lineage").first.wait_for()
        foreign = context.new_page()
        foreign.set_default_timeout(WAIT_MS)
        foreign.goto(evil, wait_until="domcontentloaded")
        foreign.wait_for_selector("body[data-done]")
        assert foreign.get_attribute("body", "data-done") == "false"
        assert status(ui) == "STOPPED"
        ask = "text => fetch('/graphql', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        own.evaluate(f"{ask} body: JSON.stringify({{query: text}})}}).then(answer => answer.json())", START)
        assert status(ui) == "RUNNING"
        browser.close()
