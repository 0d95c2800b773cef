"""Trees altered at random end in a refusal or in a right result, never in a wrong one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.drift import Altered, try_seed
from benchmarks.patch_table import archive
from vllm_wheels.core.host.archives import unpack
from vllm_wheels.core.index.releases import find
from vllm_wheels.core.settings import load

MINIATURES = Path(__file__).parents[1] / "fixtures" / "trees"
FEW, MANY = range(12), range(300)


def tried(root: Path, release: str, seeds: range) -> tuple[dict[str, int], list[str]]:
    """How many seeds ended how, and what is said of the wrong ones."""
    found = {seed: try_seed(root, release, seed) for seed in seeds}
    counts = {kind: [outcome for outcome, _ in found.values()].count(kind) for kind in ("right", "refused", "wrong")}
    return counts, [f"seed {seed}: {said}" for seed, (outcome, said) in found.items() if outcome == "wrong"]


@pytest.mark.parametrize(("family", "release"), [("unified", "0.32.0"), ("host_detected", "0.16.0")])
def test_miniature_that_drifts_is_refused_or_right(tmp_path, family, release):
    """Whatever these seeds do to a tree, the wheel is right or there is none."""
    root = shutil.copytree(MINIATURES / family, tmp_path / "tree")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    counts, wrong = tried(root, release, FEW)
    assert not wrong
    assert counts["right"]
    assert counts["refused"]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_drift_that_is_missed_is_seen(tmp_path, monkeypatch):
    """The program's own checks convict a result in which a flag was lost."""
    root = shutil.copytree(MINIATURES / "unified", tmp_path / "tree")

    def change(tree: Altered) -> None:
        tree.checks["it was lost"] = lambda made: "-fnew" in str(made.native)

    monkeypatch.setattr("benchmarks.drift.CHANGES", (change, change, change))
    outcome, said = try_seed(root, "0.32.0", 1)
    assert (outcome, said.endswith("it was lost")) == ("wrong", True)


@pytest.mark.whole
def test_real_release_that_drifts_is_refused_or_right(tmp_path, capsys):
    """The same of 0.32.0, some hundreds of times; the counts are printed."""
    settings = load()
    unpack(archive(settings, find(settings, "0.32.0")), tmp_path / "tree")
    counts, wrong = tried(tmp_path / "tree", "0.32.0", MANY)
    with capsys.disabled():
        print(counts)  # noqa: T201 - it is what the release's note quotes
    assert not wrong
