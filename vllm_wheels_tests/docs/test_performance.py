"""The table of what building costs says what was measured."""

from __future__ import annotations

import json

import pytest

from benchmarks.tokens import tables
from vllm_wheels_tests.docs.pages import ROOT, Page

RESULTS = ROOT / "benchmarks/results"
FIGURES = (
    "five_variants",
    "matrix",
    "no_change",
    "changed_readme",
    "changed_flags",
    "next_release",
    "wheel_size",
    "memory",
)


def measured(name: str, source: str) -> str:
    """The value of a result, as the page writes it; a dash where nobody measured it."""
    path = RESULTS / f"{name}-{source}.json"
    return f"{json.loads(path.read_text('utf-8'))['value']:.2f}" if path.is_file() else "-"


def test_tokens_per_second_are_those_that_were_measured():
    """The tables are what the benchmark writes of its result."""
    measured = json.loads((RESULTS / "tokens.json").read_text("utf-8"))
    assert tables(measured["results"], measured["wheels"]) in Page(ROOT / "docs/performance.md").text


@pytest.mark.parametrize("name", FIGURES)
def test_figure_of_the_page_is_the_measured_one(name):
    """No figure of the page is better than the result that it came from."""
    lines = Page(ROOT / "docs/performance.md").text.splitlines()
    (row,) = (line for line in lines if line.startswith("| ") and f"(`{name}`)" in line)
    cells = [cell.strip(" *") for cell in row.strip("|").split("|")]
    assert cells[2:] == [measured(name, "miniature"), measured(name, "real")]
