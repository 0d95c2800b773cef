"""What needs no compiler: names, texts and Python-level patches make a new wheel from the compiled one."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping

from vllm_wheels.core.engine.rule import Rule
from vllm_wheels.core.engine.store import Artifact
from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.patches import applying
from vllm_wheels.core.patches.patch import Patch
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.making import with_other_code
from vllm_wheels_tests.fixtures.building import PYTHON

TARGET = Target(release="0.32.0", python=PYTHON, variant="baseline")
LOGGER = "vllm/logger.py"


def assembled(rules: Mapping[str, Rule] | None = None) -> tuple[Artifact, list[str]]:
    said: list[str] = []
    return build_graph(load(), say=said.append, own_rules=rules).ensure("wheel", TARGET), said


def compiled(said: list[str]) -> bool:
    return any(line.startswith("compile vLLM") for line in said)


def test_names_authors_and_readme_make_the_same_new_wheel_every_time(built, tmp_path, monkeypatch):
    """Other names, authors and README make a new wheel without a compiler, and twice the same bytes."""
    (tmp_path / "readme.md").write_text("# $distribution\n\nBuilt by us.\n", "utf-8")
    monkeypatch.setenv("VLLM_WHEELS_WHEEL__DISTRIBUTIONS", json.dumps({"baseline": "ours"}))
    monkeypatch.setenv("VLLM_WHEELS_WHEEL__AUTHORS", json.dumps(["Us <us@example.org>"]))
    monkeypatch.setenv("VLLM_WHEELS_WHEEL__README", str(tmp_path / "readme.md"))
    first, said = assembled()
    assert not compiled(said)
    wheel = wheel_in(first.folder)
    read = WheelFile.read(wheel)
    assert (read.name, read.metadata["Author-email"]) == ("ours", "Us <us@example.org>")
    assert "Built by us." in read.metadata.get_payload()
    before = sha256_of(wheel)
    shutil.rmtree(first.folder)
    again, said = assembled()
    assert not compiled(said)
    assert sha256_of(wheel_in(again.folder)) == before


def test_python_level_patch_makes_a_new_wheel_without_a_compiler(built, monkeypatch):
    """A mended Python file is in a new wheel in seconds."""

    def apply(tree, wanted) -> None:
        tree.write(LOGGER, tree.text(LOGGER) + "MENDED = True\n")

    monkeypatch.setattr(applying, "PATCHES", (*applying.PATCHES, Patch(name="mended", apply=apply)))
    artifact, said = assembled(with_other_code("patched", "native", "metadata"))
    assert not compiled(said)
    with zipfile.ZipFile(wheel_in(artifact.folder)) as archive:
        assert archive.read(LOGGER).endswith(b"MENDED = True\n")
