"""Rebuilding from a statement, the list of contents, and new wheels of the same machine code."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import RebuildError
from vllm_wheels.core.rebuild import read_statement, rebuild
from vllm_wheels.core.target import Target
from vllm_wheels.core.wheelfile import sha256_of
from vllm_wheels.core.workshop import Workshop

TARGET = Target(release="0.32.0", python="3.11", variant="avx512")


def quiet(_: str) -> None:
    pass


@pytest.fixture
def built(settings_environment) -> Path:
    """A miniature wheel in the output folder, with its statement beside it."""
    workshop = Workshop(settings=configuration.load(), say=quiet)
    workshop.ensure("wheel", TARGET)
    return workshop.deliver("wheel", TARGET)


def test_rebuild_gives_the_same_bytes(built):
    """From the statement beside a wheel the very same wheel can be made again, without the store that made it."""
    rebuilt = rebuild(read_statement(built), configuration.load(), say=quiet, echo=None)
    assert (rebuilt.sha256, rebuilt.path.name) == (sha256_of(built), built.name)


def test_rebuild_names_the_input_that_differs(built, monkeypatch, tmp_path):
    """If oneDNN is not what it was, the rebuild says so and compiles nothing."""
    statement = read_statement(built)
    changed = tmp_path / "onednn"
    path = Path(statement["predicate"]["buildDefinition"]["externalParameters"]["settings"]["onednn"]["path"])
    for file in path.rglob("*"):
        if file.is_file():
            goal = changed / file.relative_to(path)
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(file.read_bytes())
    (changed / "more.txt").write_text("more")
    statement["predicate"]["buildDefinition"]["externalParameters"]["settings"]["onednn"]["path"] = str(changed)
    said: list[str] = []
    with pytest.raises(RebuildError, match="inputs are not the same") as caught:
        rebuild(statement, configuration.load(), say=said.append, echo=None)
    assert caught.value.why.startswith("onednn: ")
    assert not [line for line in said if line.startswith("compile ")]
