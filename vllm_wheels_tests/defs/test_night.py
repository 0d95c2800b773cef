"""Nights with a release of which upstream broke two variants: daemon, sensor, schedule and compiler are real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_wheels.core.engine.failures import Failures
from vllm_wheels_tests.defs.browsing import chromium, picture, pictures_folder
from vllm_wheels_tests.defs.running_ui import RunningUi, running_ui, until
from vllm_wheels_tests.fixtures import hook as hooks
from vllm_wheels_tests.fixtures import releases
from vllm_wheels_tests.fixtures.index import IndexServer, Offer, upstream_index
from vllm_wheels_tests.fixtures.miniature import variables

pytestmark = [pytest.mark.whole, pytest.mark.browser]

NIGHTS = 3
NIGHT_SECONDS = 600
FILE = "csrc/cpu/utils.cpp"
BROKEN = """
#if defined(__AVX512VNNI__) && !defined(__AVX512BF16__)
#error "upstream broke this variant"
#endif
#if defined(__AVX512F__) && !defined(__AVX512VNNI__)
void beyond_the_variant() { asm volatile("vpdpbusd %zmm0, %zmm1, %zmm2"); }
#endif
"""
VARIANTS = ("baseline", "avx512", "avx512vnni")
TICKS = """{ scheduleOrError(scheduleSelector: {
  repositoryLocationName: "vllm_wheels", repositoryName: "__repository__", scheduleName: "nightly"}) {
  ... on Schedule { scheduleState { ticks { status skipReason runIds } } } } }"""
RUNS = """{ runsOrError { ... on Runs { results { runId status pipelineName tags { key value } } } } }"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass
class Nights:
    """What is left of them.

    Attributes:
        messages: that people were sent.
        environment: with the settings.
    """

    ui: RunningUi
    folder: Path
    messages: list[dict]
    environment: dict[str, str]

    def ticks(self) -> list[dict]:
        """Of the nightly schedule, the newest first."""
        return self.ui.ask(TICKS)["scheduleOrError"]["scheduleState"]["ticks"]

    def runs(self) -> list[dict]:
        """All of them, the newest first."""
        return self.ui.ask(RUNS)["runsOrError"]["results"]


@pytest.fixture(scope="module")
def nights(tmp_path_factory, torch_folder) -> Iterator[Nights]:
    """The release is found by the sensor and fails; then three more nights, of a minute each."""
    folder = tmp_path_factory.mktemp("nights")
    changes = {FILE: releases.text("unified", FILE) + BROKEN}
    offers = [Offer(path=releases.sdist("unified", "0.32.0", folder / "index", changes), requires_python=">=3.11")]
    with (
        hooks.listening() as hook,
        IndexServer({"vllm": offers}, upstream=upstream_index()) as index,
        pytest.MonkeyPatch.context() as patch,
    ):
        wanted = {
            **variables(folder, index, torch_folder),
            "VLLM_WHEELS_AUTOMATION__ENABLED": "true",
            "VLLM_WHEELS_AUTOMATION__NIGHTLY": "* * * * *",
            "VLLM_WHEELS_AUTOMATION__VARIANTS": str([*VARIANTS]).replace("'", '"'),
            "VLLM_WHEELS_AUTOMATION__PYTHONS": '["3.11"]',
            "VLLM_WHEELS_NOTIFICATION__WEBHOOK_VARIABLE": "NIGHTS_HOOK",
            "NIGHTS_HOOK": hook.url,
        }
        for name, value in wanted.items():
            patch.setenv(name, value)
        patch.delenv("DAGSTER_HOME", raising=False)
        with running_ui(folder) as ui:
            found = Nights(ui=ui, folder=folder, messages=hook.bodies, environment={**os.environ})
            until(lambda: found.messages, NIGHT_SECONDS, "people to be told of the run that failed")
            assert {run["status"] for run in found.runs()} <= ENDED
            passed = len(found.ticks())
            until(lambda: len(found.ticks()) > passed + NIGHTS, NIGHT_SECONDS, f"{NIGHTS} more nights")
            yield found


def test_what_is_broken_is_tried_once_however_many_nights_pass(nights):
    """One compile that fails and one conviction; the nights after it ask for nothing and say why."""
    failed = Failures(nights.folder / "state" / "failures").of("3.11|0.32.0")
    assert {(each.kind, each.variant): each.attempts for each in failed} == {
        ("compiled", "avx512vnni"): 1,
        ("verification", "avx512"): 1,
    }
    assert Counter(run["status"] for run in nights.runs()) == {"FAILURE": 1}
    assert all("it failed and nothing has moved since" in tick["skipReason"] for tick in nights.ticks()[:NIGHTS])


def test_people_are_told_once(nights):
    """One message for the run that failed, and none a night."""
    (message,) = nights.messages
    assert message["text"].startswith("run failed"), message


def test_morning_page_tells_the_wheels_apart(nights, tmp_path_factory):
    """One good, one convicted, and one that did not compile."""
    pictures = pictures_folder(tmp_path_factory.mktemp("screenshots"))
    program = str(Path(sys.executable).with_name("vllm-wheels"))
    html = nights.folder / "status.html"
    said = subprocess.run(
        [program, "status", "--html", str(html)], capture_output=True, text=True, check=True, env=nights.environment
    ).stdout
    for name, state in {"baseline": "passed", "avx512": "convicted", "avx512vnni": "failed"}.items():
        assert any(line.split()[:1] == [name] and state in line for line in said.splitlines()), said
    with chromium(nights.ui) as browser:
        browser.goto(html.as_uri())
        picture(browser, pictures / "morning.png")
        for name in ("runs", "asset-groups"):
            browser.goto(f"{nights.ui.url}/{name}", wait_until="domcontentloaded")
            picture(browser, pictures / f"nights-{name}.png")
