"""The templates of CI: each is what its service takes, and its lines do what they say as far as a dry run goes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vllm_wheels.core.variants import variants
from vllm_wheels_tests.docs.pages import ROOT
from vllm_wheels_tests.fixtures.building import command

pytestmark = pytest.mark.slow

GITHUB = ROOT / "deploy/ci/github-actions.yml"
GITLAB = ROOT / "deploy/ci/gitlab-ci.yml"
RELEASE = ROOT / ".github/workflows/release.yml"
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))
SCHEMAS = {GITHUB: "github-workflows", RELEASE: "github-workflows", GITLAB: "gitlab-ci"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_service_takes_the_template(path):
    """The published schema of the service, as the linter ships it, accepts the file."""
    linter = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{SCHEMAS[path]}", str(path)]
    done = subprocess.run(linter, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def lines(path: Path) -> Iterator[str]:
    """The commands of the job that builds."""
    job = read(path)
    if path == GITHUB:
        yield from (step["run"] for step in job["jobs"]["build"]["steps"] if "run" in step)
    else:
        yield from job["build"]["script"]


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=lambda path: path.name)
def test_commands_of_the_template_run_dry(settings_environment, tmp_path, path):
    """What the job types plans, and would build, the variant of its matrix."""
    program = tmp_path / "run"
    program.write_text(f'#!/bin/sh\n[ "$1" != build ] || set -- "$@" --dry-run\nexec {shlex.join(command())} "$@"\n')
    program.chmod(0o755)
    for line in lines(path):
        given = {**os.environ, "VARIANT": "baseline", "RELEASE": "0.32.0"}
        done = subprocess.run(["sh", "-ec", line], cwd=tmp_path, capture_output=True, text=True, check=False, env=given)
        assert done.returncode == 0, done.stderr
        assert "0.32.0" in done.stdout


def test_templates_build_every_variant():
    """A new variant is not forgotten."""
    (row,) = read(GITLAB)["build"]["parallel"]["matrix"]
    assert read(GITHUB)["jobs"]["build"]["strategy"]["matrix"]["variant"] == row["VARIANT"] == list(variants())


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_ask_for_what_tells_the_cause(path):
    """A report has the output that a maintainer would ask for first."""
    asked = [entry["attributes"]["label"] for entry in read(path)["body"]]
    assert len(asked) == len(set(asked)) >= 3
