"""A wheel is released only with a passed report of every Python that it claims and this installation can provide."""

from __future__ import annotations

import json

import pytest

from vllm_wheels.core.errors import IncompleteReleaseError
from vllm_wheels.core.publish.candidate import candidates
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.places import Places
from vllm_wheels_tests.fixtures.building import run
from vllm_wheels_tests.fixtures.index import IndexServer
from vllm_wheels_tests.fixtures.publishing import PYTHON, RELEASE, released_wheels

CLAIMS = ">=3.11,<3.13"
FOREIGN = "cp311-abi3-manylinux_2_99_x86_64"


def released(folder, *, required=(), **wheel):
    released_wheels(folder, names=("baseline",), **{"requires_python": CLAIMS, **wheel})
    settings = Settings(
        output_folder=folder,
        state_folder=folder.parent / "state",
        publish={"required_pythons": required},
        smoke={"location": "host"},
    )
    (found,) = candidates(settings, RELEASE, variants=("baseline",))
    return found


def test_python_that_this_installation_has_must_have_been_tried(tmp_path, monkeypatch):
    """I cannot release a wheel for a Python on which it could have been tried and was not."""
    monkeypatch.setattr(Places, "obstacle", lambda *_: None)
    with pytest.raises(IncompleteReleaseError, match=r"has not passed on Python 3\.12") as caught:
        released(tmp_path / "wheels")
    assert "--python-version 3.12" in caught.value.remedy


def test_python_that_this_installation_lacks_is_excused_and_said(tmp_path):
    """A wheel that nothing here runs goes with the reports it has, and the rest is said with its reason."""
    found = released(tmp_path / "wheels", tag=FOREIGN)
    assert (found.pythons, list(found.without)) == ((PYTHON,), ["3.12"])
    assert "tried on Python 3.11; not on 3.12 (" in found.tried
    assert "manylinux_2_99_x86_64 is not a platform of this host" in found.tried


def test_pythons_that_i_name_are_the_ones_that_count(tmp_path, monkeypatch):
    """With publish.required_pythons the others need no report, and it is said that they have none."""
    monkeypatch.setattr(Places, "obstacle", lambda *_: None)
    found = released(tmp_path / "wheels", required=(PYTHON,))
    assert found.without == {"3.12": "publish.required_pythons leaves it out"}


def test_plan_says_where_a_wheel_was_not_tried(tmp_path):
    """Before I type --yes I read on which Pythons the wheels were not tried, and why."""
    released_wheels(tmp_path / "wheels", names=("baseline",), requires_python=CLAIMS, tag=FOREIGN)
    with IndexServer({}) as index:
        repositories = {"real": {"upload_url": index.url, "simple_url": index.url}}
        done = run(
            "publish",
            VLLM_WHEELS_OUTPUT_FOLDER=str(tmp_path / "wheels"),
            VLLM_WHEELS_STATE_FOLDER=str(tmp_path / "state"),
            VLLM_WHEELS_SMOKE__LOCATION="host",
            VLLM_WHEELS_PUBLISH__REPOSITORY="real",
            VLLM_WHEELS_PUBLISH__REQUIRED_VARIANTS='["baseline"]',
            VLLM_WHEELS_PUBLISH__REPOSITORIES=json.dumps(repositories),
        )
    assert "baseline: tried on Python 3.11; not on 3.12 (" in done.stdout, done.stderr
