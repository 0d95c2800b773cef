"""A plan refuses what the build would refuse, in the same words and with the same status."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from vllm_wheels.cli import run
from vllm_wheels.core import settings as configuration
from vllm_wheels.core.builders import image
from vllm_wheels.core.host import machine
from vllm_wheels.core.target import Target


@pytest.fixture
def typed(monkeypatch, capsys):
    """Types a command line in this process: exit status, standard output, and what standard error says."""

    def run_in_process(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vllm-wheels", *arguments])
        status = run()
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run_in_process


BASELINE = ("--variant", "baseline")
OLD = ("--release", "0.16.0")


@pytest.fixture
def surroundings(request, monkeypatch, settings_environment) -> None:
    """Variables that a case is about."""
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize(
    ("asked", "surroundings", "status"),
    [
        ((*BASELINE, "--release", "0.0.1"), {}, 13),
        ((*BASELINE, "--release", "0.32.0.1"), {}, 13),
        ((*BASELINE, "--python-version", "3.15"), {}, 14),
        ((*BASELINE, "--python-version", "3.10"), {}, 14),
        (("--variant", "avx512vnni", *OLD), {"VLLM_WHEELS_WHEEL__SAME_CODE_VARIANTS": "refuse"}, 24),
        ((*BASELINE, "--output-dir", "/proc/x"), {}, 66),
        (("--variant", ""), {}, 16),
        (("--variant", ","), {}, 16),
        ((*BASELINE, "--python-version", ""), {}, 16),
        (
            BASELINE,
            {"VLLM_WHEELS_ONEDNN__ORIGIN": "pinned", "VLLM_WHEELS_ONEDNN__GIT_URL": "file:///nowhere"},
            32,
        ),
        (BASELINE, {"VLLM_WHEELS_BUILDER__KIND": "container", "DOCKER_HOST": "unix:///nowhere.sock"}, 64),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    indirect=["surroundings"],
)
def test_plan_refuses_what_the_build_refuses(typed, asked, status):
    """I need not start a build to learn that it cannot work."""
    planned, _, reason = typed("plan", *asked)
    built, _, same = typed("build", "--yes", *asked)
    assert (planned, reason) == (built, same)
    assert planned == status


@pytest.mark.parametrize(
    ("gauge", "gigabytes", "more", "status"),
    [("room", 0.1, (), 62), ("memory_available", 0.1, (), 63), ("memory_available", 64.0, ("--max-jobs", "400"), 63)],
)
def test_too_little_of_this_machine_is_refused(  # noqa: PLR0917 - pytest passes by name
    settings_environment, monkeypatch, typed, gauge, gigabytes, more, status
):
    """A disk or a memory that will not do is told before an hour of compiling."""
    monkeypatch.setattr(machine, gauge, lambda *_, **__: gigabytes)
    planned, built = typed("plan", *BASELINE, *more), typed("build", *BASELINE, *more)
    assert (planned[0], planned[2]) == (built[0], built[2])
    assert planned[0] == status


@pytest.mark.parametrize("written", ["0.32", "v0.32.0", "0.32.0"])
def test_release_is_understood_however_it_is_written(settings_environment, typed, written):
    """Upstream's tags say v0.32.0, people 0.32; the wheel is 0.32.0."""
    status, shown, _ = typed("plan", *BASELINE, "--release", written)
    assert (status, "vLLM 0.32.0 on Python" in shown) == (0, True)


@pytest.mark.parametrize(
    ("written", "release"), [("v0.8.5.post1", "0.8.5.post1"), ("0.33rc1", "0.33.0rc1"), ("1", "1.0.0")]
)
def test_release_has_upstreams_form(written, release):
    """Partitions, artifacts and file names have one text for a release."""
    assert Target(release=written, python="3.12").release == release


def test_plan_leaves_no_folder_of_its_own_but_the_state(settings_environment, typed, tmp_path):
    """Asking whether a folder can be written makes nothing there."""
    assert typed("plan", *BASELINE, "--output-dir", str(tmp_path / "new" / "wheels"))[0] == 0
    assert not (tmp_path / "new").exists()


def test_plan_of_a_machine_that_will_be_set_up_counts_on_the_engine(settings_environment, monkeypatch, typed):
    """Before set-up I see what will be installed, and how long the build takes."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__KIND", "container")
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__IMAGE", "debian")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    status, shown, _ = typed("plan", *BASELINE, "--set-up")
    assert status == 0
    assert "set up running container engine" in shown
    assert "make image" in shown
    assert "make compiled baseline" in shown


def test_substitute_of_the_image_is_planned_where_the_registry_is_out_of_reach(monkeypatch, tmp_path):
    """The plan with --allow-substitutes names the image that will be taken."""
    client = Mock()
    client.api.inspect_distribution.side_effect = image.DockerException("no route to host")
    client.images.get.side_effect = image.ImageNotFound("none")
    monkeypatch.setattr("vllm_wheels.core.builders.docker_engine._require_listener", lambda: None)
    monkeypatch.setattr("docker.from_env", lambda **_: client)
    monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(tmp_path / "state"))
    with pytest.raises(image.PullError, match="cannot be pulled"):
        image.planned_image(configuration.load())
    monkeypatch.setenv("VLLM_WHEELS_SUBSTITUTES", "allow")
    first, *_ = image.planned_image(configuration.load())
    assert "Debian" in first.title


def test_folder_that_is_a_file_is_named(settings_environment, typed):
    """The message says which part of the path is in the way."""
    Path("file").touch()
    assert "file is not a folder" in typed("plan", *BASELINE, "--output-dir", "file/below")[2]
