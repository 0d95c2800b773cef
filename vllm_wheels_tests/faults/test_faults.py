"""Each fault of the catalogue, then a plain rerun; the variable FAULTS_TABLE names a file for how they ended."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from vllm_wheels_tests.faults.building import BUILDING, Workshop
from vllm_wheels_tests.faults.publishing import PUBLISHING
from vllm_wheels_tests.faults.world import World

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
LEAST = 30


def noted(what: str, first: str, again: str) -> None:
    if named := os.environ.get("FAULTS_TABLE"):
        with Path(named).open("a") as stream:
            stream.write(json.dumps([what, first, again]) + "\n")


def chance_of(what: str) -> random.Random:
    """The same moments in every run."""
    return random.Random(what)  # noqa: S311 - nothing is kept secret by it


def marked(faults, *, always):
    return [
        pytest.param(fault, id=fault.what, marks=pytest.mark.whole if always or fault.process else ())
        for fault in faults
    ]


@pytest.mark.parametrize("fault", marked(PUBLISHING, always=False))
def test_publishing_converges_after(fault, context, front, environment, tmp_path):
    """Whatever broke, the next run ends with all files, the verified bytes, each sent once, and the receipts."""
    context.variants = ("avx512", "baseline")
    world = World(desk=context, front=front, environment=environment, chance=chance_of(fault.what))
    first = fault.inject(world)
    front.faults, front.knock_faults, front.stale, context.changes = [], [], 0, {}
    again = world.run() if fault.process else world.publish()
    noted(fault.what, first.replace(str(tmp_path), "..."), again)
    assert again == "published"
    world.assert_converged()


@pytest.mark.parametrize("fault", marked(BUILDING, always=True))
def test_building_converges_after(fault, built, tmp_path):
    """Whatever broke, the next build ends with the same bytes as one that nothing disturbed."""
    shop = Workshop(folder=tmp_path, chance=chance_of(fault.what))
    sound = shop.hashes()
    assert sound
    first = fault.inject(shop)
    again = shop.build()
    noted(fault.what, first.replace(str(tmp_path), "..."), again)
    assert again == "built"
    assert shop.hashes() == sound


def test_page_lists_every_fault():
    """The table is written by a program out of a run of all; who adds a fault runs it."""
    whats = [fault.what for fault in (*PUBLISHING, *BUILDING)]
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert rows[1:] == whats
    assert len(set(whats)) == len(whats) >= LEAST
