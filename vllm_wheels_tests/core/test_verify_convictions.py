"""Every way in which a published wheel was found to be wrong is convicted under its own identifier."""

from __future__ import annotations

import pytest

from vllm_wheels.core.verify.static_checks import STATIC
from vllm_wheels.core.verify.test_runs import TEST_RUNS
from vllm_wheels_tests.core.defects import ALONE, AMONG, CONVICTED, EMULATED, INSTALLED, judged

NEVER = {"processor", "complete"}
"""They tell why others are left open or skipped, and convict nothing."""


def tells_what_to_do(found):
    return bool(found.remedy) and "\n" not in found.line


@pytest.mark.parametrize(("check", "recipe"), list(ALONE.values()), ids=list(ALONE))
def test_defect_is_convicted_under_its_identifier(tmp_path, settings, check, recipe):
    """Whatever was wrong with a published wheel, the check of that name says so, and what to do."""
    found = judged(recipe.write(tmp_path), check, settings)
    assert found.verdict == "convicted", found
    assert tells_what_to_do(found), found


@pytest.mark.parametrize("check", AMONG)
def test_defect_among_other_wheels_is_convicted_under_its_identifier(tmp_path, check):
    """What only the release's other wheels, or the index, can tell is convicted as well."""
    found = AMONG[check](tmp_path)
    assert found.verdict == "convicted", found
    assert tells_what_to_do(found), found


@pytest.mark.parametrize("check", EMULATED)
def test_defect_on_an_emulated_cpu_is_convicted_under_its_identifier(check):
    """A wheel that dies on a CPU that this machine does not have is convicted by emulating that one."""
    found = EMULATED[check]()
    assert found.verdict == "convicted", found
    assert tells_what_to_do(found), found


@pytest.mark.parametrize("check", INSTALLED)
def test_broken_wheel_is_convicted_by_the_check_made_for_it(harness, check):
    """Each defect of an installed wheel is named by its own identifier, and no other check cries."""
    INSTALLED[check](harness)
    report = harness.verify()
    (finding,) = (each for each in report.findings if each.verdict == "convicted")
    assert finding.check == check
    assert finding.evidence
    assert report.verdict == "convicted"
    assert tells_what_to_do(finding), finding


def test_every_check_has_a_wheel_that_it_convicts():
    """A check that nobody has seen convict fails the suite."""
    assert {check.name for check in (*STATIC, *TEST_RUNS)} - NEVER == CONVICTED
