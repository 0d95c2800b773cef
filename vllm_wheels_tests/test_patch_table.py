"""The patches over every source archive of the index, and the page that shows the outcome."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from benchmarks import patch_table
from benchmarks.patch_table import Row, as_markdown, rows
from vllm_wheels.core.settings import load

PAGE = Path(__file__).parents[1] / "docs" / "releases.md"
NEWEST = 2


def documented(page: str) -> dict[str, str]:
    """Rows of the page by release."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and line[2].isdigit()]
    return {line.split("|")[1].strip(): line for line in lines}


def test_page_names_a_reason_once():
    """Two refusals for the same reason share its number."""
    outcomes = [{"a": "yes", "b": "= a"}, {"a": "it is old", "b": "it is strange"}, {"a": "yes", "b": "it is old"}]
    page = as_markdown([Row(f"0.{number}.0", "unified", "2", "v3", each) for number, each in enumerate(outcomes)])
    assert documented(page) == {
        "0.0.0": "| 0.0.0 | unified | 2 | v3 | yes | = a |",
        "0.1.0": "| 0.1.0 | unified | 2 | v3 | no (1) | no (2) |",
        "0.2.0": "| 0.2.0 | unified | 2 | v3 | yes | no (1) |",
    }
    assert page.endswith("Reasons:\n\n1. it is old\n2. it is strange\n")


def test_table_of_the_miniatures(settings_environment, monkeypatch, tmp_path):
    """The program goes through all releases of the index, downloads each once and says what becomes of the variants."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = {each.release: each for each in rows(load())}
    assert set(found["0.32.0"].outcomes.values()) == {"yes"}
    assert found["0.16.0"].outcomes["avx512vnni"] == "= avx512"
    assert len(list(patch_table.cache_folder().iterdir())) == len(found)


@pytest.mark.real
def test_newest_releases_are_as_the_page_says():
    """What a maintainer builds next is what docs/releases.md says of it."""
    page = documented(PAGE.read_text("utf-8"))
    newest = documented(as_markdown(list(islice(rows(load()), NEWEST))))
    assert {release: row for release, row in newest.items() if release in page} == {
        release: page[release] for release in newest if release in page
    }


@pytest.mark.whole
def test_patch_table_is_true():
    """docs/releases.md says of every release what the patches make of it; newer ones fit or are refused in words."""
    page = PAGE.read_text("utf-8")
    found = list(rows(load()))
    fresh = as_markdown([each for each in found if each.release in documented(page)])
    assert fresh == page
