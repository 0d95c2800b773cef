"""Exactly what is out of date is made again: asserted change by change, on the miniature sources."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from vllm_wheels.core import variants as variants_module
from vllm_wheels.core.builders.local import LocalBuilder
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.patches import applying
from vllm_wheels.core.patches.patch import Patch
from vllm_wheels_tests.defs.workplace import KINDS, TARGET, VARIANTS, Workplace, change_code, new_artifacts
from vllm_wheels_tests.fixtures import releases, torchlike
from vllm_wheels_tests.fixtures.building import copy_artifacts
from vllm_wheels_tests.fixtures.index import IndexServer, Offer

pytestmark = pytest.mark.slow

NATIVE = "csrc/cpu/utils.cpp"


@pytest.fixture
def workplace(settings_environment, two_built, tmp_path):
    """A copy of the built workplace, and the cache of variants empty."""
    copy_artifacts(two_built, tmp_path / "state")
    variants_module.variants.cache_clear()
    yield Workplace()
    variants_module.variants.cache_clear()


@dataclass(frozen=True)
class Scene:
    """What a change may lay hands on."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    index: IndexServer
    torch: Path


def readme(scene):
    template = scene.folder / "readme.md"
    template.write_text("# $distribution $version\n\nAnother text for $variant.\n")
    scene.monkeypatch.setenv("VLLM_WHEELS_WHEEL__README", str(template))


def flags(scene):
    text = files("vllm_wheels.core").joinpath("variants.toml").read_text("utf-8")
    head, mark, tail = text.partition("[avx512]")
    changed = head + mark + tail.replace('"-mavx512dq"', '"-mavx512dq", "-mprefer-vector-width=256"', 1)
    (scene.folder / "variants.toml").write_text(changed)
    scene.monkeypatch.setattr(variants_module, "files", lambda _: scene.folder)


def compiler(scene):
    known = LocalBuilder.identity
    scene.monkeypatch.setattr(LocalBuilder, "identity", lambda self: {**known(self), "compiler": "g++ 99"})


def builder_image(scene):
    known = LocalBuilder.identity
    scene.monkeypatch.setattr(LocalBuilder, "identity", lambda self: {**known(self), "image": "sha256:another"})


def torch_build(scene):
    folder = scene.folder / "torch"
    shutil.copytree(scene.torch, folder)
    torchlike.torch(folder, "2.13.0+cpu").unlink()
    whole = torchlike.wheel
    with scene.monkeypatch.context() as patch:
        patch.setattr(
            torchlike, "wheel", lambda *args, files, **more: whole(*args, files={**files, "torch/new.py": ""}, **more)
        )
        torchlike.torch(folder, "2.13.0+cpu")
    scene.monkeypatch.setenv("VLLM_WHEELS_INDEX__FIND_LINKS", json.dumps([str(folder)]))


def code(scene):
    change_code(scene.monkeypatch, "patches/kernels.py")


def patch_of(path, scene):
    def comment(tree, _wanted):
        tree.write(path, tree.text(path) + "\n# patched\n")

    code(scene)
    scene.monkeypatch.setattr(applying, "PATCHES", (*applying.PATCHES, Patch(name="comment", apply=comment)))


def python_patch(scene):
    patch_of("vllm/envs.py", scene)


def native_patch(scene):
    patch_of("cmake/cpu_extension.cmake", scene)


def source(scene):
    text = releases.text("unified", "vllm/envs.py")
    sdist = releases.sdist("unified", "0.32.0", scene.folder / "again", {"vllm/envs.py": f"{text}\n# re-tagged\n"})
    others = [offer for offer in scene.index.projects["vllm"] if "0.32.0" not in offer.path.name]
    scene.monkeypatch.setitem(
        scene.index.projects, "vllm", [*others, Offer(path=sdist, requires_python=">=3.11,<3.15")]
    )


def of(*kinds: str, variants=VARIANTS) -> set[str]:
    shared = {kind for kind in kinds if not rules()[kind].per_variant}
    return shared | {f"{kind}/{variant}" for kind in kinds if kind not in shared for variant in variants}


LANE = ("avx512",)
MADE_AGAIN = tuple(kind for kind in KINDS if kind != "verification")
OF_PATCHES = of("patched", "native", "metadata", "compiled", "repaired", "wheel", "verification")

CHANGES = {
    "nothing": (None, set(), {}),
    "readme template": (readme, of("metadata", "wheel", "verification"), {"metadata": 1, "wheel": 1}),
    "flags of one variant": (
        flags,
        of("patched", "native", "metadata", "compiled", "repaired", "wheel", "verification", variants=LANE),
        {"patched": 1, "native": 1, "metadata": 1, "compiled": 1, "repaired": 1, "wheel": 1},
    ),
    "compiler": (compiler, of("compiled", "repaired", "wheel", "verification"), {"compiled": 1}),
    "builder image": (builder_image, of("compiled", "repaired", "wheel", "verification"), {"compiled": 1}),
    "torch build": (torch_build, of("torch_env", "compiled", "repaired", "wheel", "verification"), {"torch_env": 1}),
    "code of patches": (code, OF_PATCHES, {"patched": 1, "native": 1, "metadata": 1}),
    "patch of Python": (python_patch, OF_PATCHES, {"patched": 1, "native": 1, "metadata": 1, "wheel": 1}),
    "patch of the build": (
        native_patch,
        OF_PATCHES,
        {"patched": 1, "native": 1, "metadata": 1, "compiled": 1, "wheel": 1},
    ),
    "source": (source, of(*KINDS) - {"tools"}, {kind: 1 for kind in MADE_AGAIN if kind not in {"tools", "native"}}),
}
"""Change, what becomes stale in both lanes, and what is made again in one; everything else comes from the store.

What comes out as before, byte by byte, is made again alone: what was made from it stays.
"""


@pytest.fixture
def scene(tmp_path, monkeypatch, miniature_index, torch_folder):
    return Scene(tmp_path, monkeypatch, miniature_index, torch_folder)


@pytest.mark.parametrize("change", CHANGES)
def test_change_makes_stale_and_rebuilds_exactly_what_it_touches(change, workplace, scene):
    """After this change these assets are stale, these artifacts are made again, and then the lane is fresh."""
    alter, stale, made = CHANGES[change]
    if alter:
        alter(scene)
    assert workplace.stale() == stale
    before = workplace.artifacts()
    wanted = stale & of(*MADE_AGAIN, variants=LANE)
    if wanted:
        workplace.materialize(sorted(wanted))
    assert new_artifacts(before, workplace.artifacts()) == made
    assert workplace.stale(kinds=MADE_AGAIN, variants=LANE) == set()


def test_whole_lane_is_fresh_after_a_run_of_what_was_stale(workplace, scene):
    """After a changed template, one run over the stale assets, test_runs included, leaves nothing stale."""
    readme(scene)
    lane = ("baseline",)  # Whose wheel every processor can try.
    workplace.materialize(sorted(workplace.stale(variants=lane)))
    assert workplace.stale(variants=lane) == set()


def test_observed_inputs_tell_which_of_them_moved(workplace, scene):
    """What moved is named, and only that."""
    assert workplace.moved() == {}
    compiler(scene)
    assert workplace.moved() == {TARGET.partition: ["toolchain"]}
    assert workplace.moved() == {}


def test_unreachable_index_makes_nothing_stale(workplace, miniature_index):
    """An index that does not answer leaves everything as fresh as it was."""
    with miniature_index.failing("vllm", "error"):
        assert workplace.stale() == set()
