"""A few mutations of a good wheel are judged as the page about all of them says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.mutation_table import table
from benchmarks.mutations import CAUGHT, MISSED, PAGE, RESULTS, judge, page

FEWEST = 120
RESULT = json.loads((RESULTS / "mutations.json").read_text("utf-8"))
KNOWN = {each.name: each for each in table()}
SOME = (
    "a byte before",
    "set-uid",
    "AVX-512 beside an empty sibling",
    "Apache and GPL",
    "sitecustomize in the standard library",
    "dist-info of another distribution",
    "code before the guard",
    "plain linux",
    "a further requirement",
)
"""One or two of each group, of those whose checks start no program."""


@pytest.mark.parametrize("name", [name for name in KNOWN if name in SOME])
def test_mutation_is_judged_as_the_page_says(tmp_path, settings, name):
    """What is caught today is caught tomorrow."""
    outcomes = {mutation: outcome for _, mutation, outcome, _ in RESULT["uncaught"]}
    assert judge(KNOWN[name].recipe.write(tmp_path), settings)[0] == outcomes.get(name, CAUGHT)


def test_no_mutation_of_the_table_is_missed_without_a_reason():
    """The page lists what is missed, each with the reason."""
    assert len(KNOWN) >= FEWEST
    assert all(why for _, _, outcome, why in RESULT["uncaught"] if outcome == MISSED)
    assert sum(sum(counts.values()) for group, counts in RESULT["counts"].items() if group != "random") == len(KNOWN)


def test_page_is_that_of_the_result():
    """Nobody edits the page by hand."""
    assert Path(PAGE).read_text("utf-8") == page(RESULT)
