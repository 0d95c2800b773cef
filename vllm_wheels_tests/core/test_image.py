"""How builder images come about, and what happens where they cannot."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from vllm_wheels.core.builders import debootstrap, image
from vllm_wheels.core.builders.image import PullError, ensure_image, planned_image, recipe
from vllm_wheels.core.errors import EngineUnreachableError, ImageError, MachineError
from vllm_wheels.core.host import machine
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings

NOWHERE = "127.0.0.1:1/none@sha256:" + "0" * 64

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root")


@pytest.fixture
def no_engine(monkeypatch, tmp_path) -> None:
    """DOCKER_HOST names a socket where nobody listens."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/closed.sock")


@pytest.fixture
def unreachable_registry(monkeypatch) -> None:
    """The official image is on a registry that refuses connections."""
    official = recipe("manylinux")
    moved = replace(official, entry={**official.entry, "reference": NOWHERE})
    monkeypatch.setattr(image, "recipe", lambda kind: moved if kind == "manylinux" else recipe(kind))


def put_program(folder: Path, text: str) -> None:
    folder.mkdir()
    program = folder / "debootstrap"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def settings(tmp_path: Path, **changes) -> Settings:
    return Settings(state_folder=tmp_path / "state", **changes)


def test_official_image_is_named_by_digest():
    """Nobody can put another image in the place of the official one."""
    assert "@sha256:" in recipe("manylinux").base


def test_name_changes_with_the_recipe():
    """An image made from an older dockerfile or list of packages is never taken for the current one."""
    debian = recipe("debian")
    names = {
        debian.name,
        replace(debian, dockerfile="FROM scratch").name,
        replace(debian, entry={**debian.entry, "packages": ["gcc"]}).name,
        replace(debian, entry={**debian.entry, "suite": "forky"}).name,
    }
    assert len(names) == 4


@pytest.mark.usefixtures("no_engine")
def test_plan_on_a_bare_machine_has_every_step(tmp_path):
    """Where no engine answers yet, the plan of the Debian image holds all that will be done, with durations."""
    steps = planned_image(settings(tmp_path, builder={"image": "debian"}))
    assert [step.title.split()[0] for step in steps] == ["make", "import", "build"]
    assert all(step.seconds for step in steps)


@pytest.mark.usefixtures("no_engine")
def test_plan_names_what_is_pulled(tmp_path):
    """The plan of the official image names its download."""
    pull, build = planned_image(settings(tmp_path))
    assert pull.downloads[0].url == recipe("manylinux").base
    assert build.title.startswith("build the manylinux builder image")


@pytest.mark.usefixtures("no_engine")
def test_image_without_engine_is_an_error(tmp_path):
    """No image is made where no engine answers."""
    with pytest.raises(EngineUnreachableError):
        ensure_image(settings(tmp_path), lambda _: None)


def bootstrap(folder: Path) -> None:
    tar = folder / "base.tar"
    commands = debootstrap.commands("trixie", packages=["gcc"], tar=str(tar))
    debootstrap.make(commands, suite="trixie", tar=tar, log=folder / "log", runner=Runner())


def test_missing_debootstrap_is_an_error_with_a_remedy(monkeypatch, tmp_path):
    """Without debootstrap the Debian image cannot be made, and set-up installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "ADMINISTRATION", ())
    with pytest.raises(MachineError) as caught:
        bootstrap(tmp_path)
    assert "vllm-wheels set-up" in caught.value.remedy


@needs_root
def test_failed_debootstrap_is_an_error_with_its_last_lines(monkeypatch, tmp_path):
    """What debootstrap said last stands in the reason, and the log is named."""
    put_program(tmp_path / "programs", "echo first; echo E: cannot reach the mirror; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")
    with pytest.raises(ImageError) as caught:
        bootstrap(tmp_path)
    assert "E: cannot reach the mirror" in caught.value.why
    assert str(tmp_path / "log") in caught.value.remedy


@needs_root
def test_base_system_is_packed_without_what_no_image_needs(monkeypatch, tmp_path):
    """The archive holds the system's files, not the package lists; the unpacked system is gone."""
    script = "for last; do system=$last; case $last in */*.system) break;; esac; done\n"
    script += (
        'mkdir -p "$system/etc" "$system/var/lib/apt/lists"; touch "$system/etc/passwd" "$system/var/lib/apt/lists/x"'
    )
    put_program(tmp_path / "programs", script)
    monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")
    tar = tmp_path / "base.tar"
    bootstrap(tmp_path)
    with tarfile.open(tar) as archive:
        names = archive.getnames()
    assert "./etc/passwd" in names
    assert "./var/lib/apt/lists/x" not in names
    assert not (tmp_path / "base.system").exists()


@pytest.mark.container
def test_second_call_does_nothing(tmp_path):
    """An image that is there is taken at once, and nothing is said or planned."""
    chosen = settings(tmp_path, builder={"image": "debian"})
    first = ensure_image(chosen, lambda _: None)
    said: list[str] = []
    assert ensure_image(chosen, said.append) == first
    assert said == []
    assert planned_image(chosen) == ()


@pytest.mark.container
@pytest.mark.usefixtures("unreachable_registry")
def test_unreachable_registry_is_an_error_that_names_the_substitute(tmp_path):
    """Where the official image cannot be pulled, nothing else is taken unasked."""
    with pytest.raises(PullError, match="cannot be pulled") as caught:
        ensure_image(settings(tmp_path), lambda _: None)
    assert "builder.image = debian" in caught.value.remedy
    assert "--allow-substitutes" in caught.value.remedy


@pytest.mark.container
@pytest.mark.usefixtures("unreachable_registry")
def test_substitute_is_taken_loudly_where_allowed(tmp_path):
    """With substitutes allowed, the Debian image is taken; a notice says so to the user and to the record."""
    said: list[str] = []
    made = ensure_image(settings(tmp_path, substitutes="allow"), said.append)
    assert made.kind == "debian"
    assert made.notices[0].startswith("SUBSTITUTE")
    assert made.notices[0] in said


@pytest.mark.container
def test_failed_dockerfile_is_an_error_with_its_last_lines(monkeypatch, tmp_path):
    """A dockerfile that fails says what failed; no image of that name is left behind."""
    ensure_image(settings(tmp_path, builder={"image": "debian"}), lambda _: None)
    broken = replace(recipe("debian"), dockerfile="ARG BASE\nFROM ${BASE}\nRUN echo no such luck && false\n")
    monkeypatch.setattr(image, "recipe", lambda _: broken)
    chosen = settings(tmp_path, builder={"image": "debian"})
    with pytest.raises(ImageError) as caught:
        ensure_image(chosen, lambda _: None)
    assert "no such luck" in caught.value.why
    assert "\n" not in caught.value.why
    assert [step.title.split()[0] for step in planned_image(chosen)] == ["build"]


@pytest.mark.container
def test_half_made_base_system_is_thrown_away(monkeypatch, tmp_path):
    """What a killed run left half made is removed before the next one begins."""
    ensure_image(settings(tmp_path, builder={"image": "debian"}), lambda _: None)
    left = tmp_path / "state/staging/image/killed/base.system"
    left.mkdir(parents=True)
    other = replace(recipe("debian"), dockerfile="ARG BASE\nFROM ${BASE}\nRUN false\n")
    monkeypatch.setattr(image, "recipe", lambda _: other)
    with pytest.raises(ImageError):
        ensure_image(settings(tmp_path, builder={"image": "debian"}), lambda _: None)
    assert not left.exists()
