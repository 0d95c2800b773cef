"""The whole graph over the miniature sources, through Dagster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.target import Target
from vllm_wheels.defs import home, internals
from vllm_wheels.defs.keys import key
from vllm_wheels_tests.fixtures.building import PYTHON, RECORDED, TARGET, build, dagster

pytestmark = pytest.mark.slow


def the_wheel() -> Path:
    (wheel,) = wheels_in(configuration.load().output_folder)
    return wheel


def test_graph_has_an_asset_per_artifact_and_variant():
    """The graph is the one that the documentation draws."""
    from vllm_wheels.definitions import defs  # noqa: PLC0415 - loading it is what is tested

    keys = {asset.to_user_string() for asset in defs.resolve_asset_graph().get_all_asset_keys()}
    names = ("baseline", "avx512", "avx512vnni", "avx512bf16", "amxbf16")
    kinds = (
        "patched",
        "native",
        "metadata",
        "compiled",
        "repaired",
        "wheel",
        "verification",
        "release",
        "test_setup",
        "names",
    )
    shared = {"source", "onednn", "torch_env", "tools", "newest_release", "overview"}
    observed = {"upstream", "onednn_pin", "packages", "repair_tools", "build_settings", "settings", "toolchain"}
    assert keys == shared | observed | {f"{kind}/{name}" for kind in kinds for name in names}


def test_one_verification_makes_and_records_all_that_it_needs(settings_environment):
    """Asking a fresh installation for one verification gives a wheel with a report that passed."""
    done = build("verification")
    assert done.failures == ()
    wheel = the_wheel()
    assert wheel.name.startswith("vllm_cpu-0.32.0-cp311-abi3-manylinux")
    report = json.loads(wheel.with_name(f"{wheel.stem}.py{PYTHON}.report.json").read_text())
    assert (report["verdict"], report["sha256"]) == ("passed", sha256_of(wheel))
    assert wheel.with_name(f"{wheel.stem}.provenance.json").is_file()
    (kept,) = Store(configuration.load().state_folder / "store").artifacts("wheel")
    assert (done.versions()["wheel"], kept.facts["sha256"]) == (kept.version, sha256_of(wheel))
    assert all(done.versions().values())


def test_log_and_provenance_stand_beside_the_wheel(built):
    """Whoever takes the wheel finds how it was made next to it."""
    wheel = the_wheel()
    statement = json.loads(wheel.with_name(f"{wheel.stem}.provenance.json").read_text())
    assert statement["sha256"] == sha256_of(wheel)
    assert statement["for_release"] is False
    assert "[1/" in wheel.with_name(f"{wheel.stem}.build.log").read_text()


def test_wheel_that_deviates_is_refused_by_every_index(built):
    """A wheel that is not for release carries the classifier that indexes refuse."""
    assert "Private :: Do Not Upload" in WheelFile.read(the_wheel()).metadata.get_all("Classifier")


def test_library_from_outside_is_inside_the_wheel(built):
    """Libnuma is grafted, so that a machine without it can use the wheel."""
    members = WheelFile.read(the_wheel()).members
    assert [name for name in members if name.startswith("vllm_cpu.libs/libnuma")]


def test_second_run_takes_everything_from_the_store(built):
    """Nothing changed, nothing made."""
    done = build("wheel")
    assert done.failures == ()
    assert not done.compiled


def test_new_version_suffix_makes_a_new_wheel_without_compiling(built, monkeypatch):
    """Only names changed, so no compiler starts."""
    monkeypatch.setenv("VLLM_WHEELS_WHEEL__VERSION_SUFFIX", ".post1")
    done = build("wheel")
    assert done.failures == ()
    assert not done.compiled
    versions = [path.name.split("-")[1] for path in wheels_in(configuration.load().output_folder)]
    assert versions == ["0.32.0", "0.32.0.post1"]


def test_lost_database_is_filled_again_from_the_store(built, monkeypatch):
    """A new Dagster database learns of the artifacts that the store has, within one run."""
    monkeypatch.setenv("DAGSTER_HOME", str(built / "another-home"))
    done = build("verification")
    assert done.failures == ()
    assert not done.compiled
    assert all(done.versions().values())


def test_dry_run_makes_and_records_nothing(settings_environment):
    """A dry run shows the chain of plans and leaves no trace in the store or the database."""
    done = build("wheel", dry_run=True)
    assert done.failures == ()
    assert "compile vLLM 0.32.0 for baseline" in "\n".join(done.lines)
    assert set(done.versions().values()) == {None}
    assert not (configuration.load().state_folder / "store").exists()


def test_host_detected_release_is_built_by_the_same_graph(settings_environment):
    """A release of the older family builds and passes as well."""
    assert build("verification", target=Target(release="0.16.0", python=PYTHON)).failures == ()


@pytest.mark.parametrize(
    ("target", "code"),
    [(Target(release="0.31.7", python=PYTHON), 13), (Target(release="0.32.0", python="3.9"), 14)],
    ids=["unknown release", "Python that the release does not support"],
)
def test_partition_that_cannot_be_made_fails_with_its_own_code(settings_environment, target, code):
    """A wrong release and a wrong Python are told apart."""
    assert {failure.exit_code for failure in build("wheel", target=target).failures} == {code}


def test_release_refuses_a_wheel_that_is_not_for_release(built):
    """What deviates from the release's pins is never published."""
    assert [failure.exit_code // 10 for failure in build("release").failures] == [9]


def materialize(*arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str | None]]:
    done = dagster("asset", "materialize", *arguments)
    instance = home.instance(configuration.load())
    found = {
        kind: internals.latest_data_version(instance, key(kind, "baseline"), TARGET.partition) for kind in RECORDED
    }
    return done, found


def test_dagsters_own_command_makes_the_wheel_and_what_it_needs(settings_environment):
    """`dagster asset materialize --select wheel/baseline` works on a fresh installation, letter by letter."""
    done, found = materialize("--select", "wheel/baseline")
    assert done.returncode == 0, done.stderr[-3000:]
    assert the_wheel().is_file()
    assert {kind for kind, version in found.items() if version} == {*RECORDED} - {"verification"}


@pytest.mark.parametrize(
    "arguments",
    [["--select", "wheel/baseline", "--partition", TARGET.partition], ["--select", "*wheel/baseline"]],
    ids=["with a partition", "with everything upstream"],
)
def test_dagsters_own_command_takes_a_partition_and_a_whole_chain(built, arguments):
    """The other two ways of asking work as well."""
    done, _ = materialize(*arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Materialized value wheel baseline" in done.stderr


def test_failure_under_dagsters_own_command_shows_the_remedy(settings_environment, monkeypatch):
    """An error of ours reads as what, why and what to do in Dagster's log too."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__MINIMUM_COMPILER", "99.0")
    done, _ = materialize("--select", "wheel/baseline")
    assert done.returncode != 0
    assert "\n  do:  " in done.stderr
    last = done.stderr.splitlines()[-3:]
    assert [line[:6] for line in last] == ["error:", "  why:", "  do: "]


@pytest.mark.container
@pytest.mark.parametrize("release", ["0.32.0", "0.16.0"])
def test_graph_builds_in_a_container_too(settings_environment, monkeypatch, release):
    """With a container engine, the compiler runs in the builder image and the wheel is tried where it can run."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__KIND", "container")
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__IMAGE", "debian")
    done = build("verification", target=Target(release=release, python="3.11"))
    assert done.failures == ()
    statement = json.loads(next(configuration.load().output_folder.glob("*.provenance.json")).read_text())
    assert statement["builder"]["kind"] == "container"


@pytest.mark.real
def test_real_release_is_patched_and_its_compile_planned(monkeypatch, tmp_path):
    """The real 0.32.0 comes from the index, takes every patch of every variant, and its compile can be planned."""
    from vllm_wheels.core.operations.builds import build_graph  # noqa: PLC0415
    from vllm_wheels.core.variants import variants  # noqa: PLC0415

    monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(tmp_path / "state"))
    builds = build_graph(configuration.load(), say=lambda _: None)
    for name in variants():
        target = Target(release="0.32.0", python="3.11", variant=name)
        artifact = builds.ensure("metadata", target)
        assert artifact.facts["distribution"].startswith("vllm-cpu")
        assert any("triton" in line for line in artifact.facts["dropped_requirements"])
    source = builds.ensure("source", target)
    assert source.details["upstream"]["torch"] == "2.13.0"
