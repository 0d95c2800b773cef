"""Some mutations of a good wheel are judged on every run of the tests; benchmarks/mutations.py judges all."""

from __future__ import annotations

import pytest

from benchmarks.mutation_table import table
from benchmarks.mutations import CAUGHT, MISSED, drawn, judge

FEWEST = 120
KNOWN = {each.name: each for each in table()}
CAUGHT_ONES = (
    "a byte before",
    "set-uid",
    "AVX-512 beside an empty sibling",
    "Apache and GPL",
    "sitecustomize in the standard library",
    "dist-info of another distribution",
    "guard in purelib",
    "code before the guard",
    "code that torch runs",
    "plain linux",
)
"""One or two of each group, of those whose checks start no program."""


@pytest.mark.parametrize("name", CAUGHT_ONES)
def test_mutation_is_caught(tmp_path, settings, name):
    """What is caught today is caught tomorrow."""
    assert judge(KNOWN[name].recipe().write(tmp_path), settings)[0] == CAUGHT


def test_harmless_change_is_not_held_against_a_wheel(tmp_path, settings):
    """A check that convicts whatever differs would catch all mutations, and be of no use."""
    assert judge(KNOWN["a further requirement"].recipe().write(tmp_path), settings)[0] == MISSED


def test_table_is_long_and_each_mutation_has_a_name_of_its_own():
    """Every mutation that need not be seen says why."""
    assert len(table()) == len(KNOWN) >= FEWEST
    assert all(each.why for each in KNOWN.values() if each.group == "harmless")


def test_random_mutations_are_the_same_from_the_same_seed():
    """Whoever repeats a run finds what was found."""
    assert [each.name for each in drawn(5, 7)] == [each.name for each in drawn(5, 7)]
    assert [each.name for each in drawn(5, 7)] != [each.name for each in drawn(5, 8)]
