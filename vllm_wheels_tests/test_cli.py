"""The command line as a user meets it: what it prints, its exit codes, and what an interruption leaves."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels_tests.fixtures.building import command, run

pytestmark = pytest.mark.slow

COMPILING = "[1/"


def wrong(done: subprocess.CompletedProcess[str]) -> tuple[int, list[str]]:
    """Exit code, and the first words of the lines on standard error."""
    assert "Traceback" not in done.stderr
    return done.returncode, [line.split()[0] for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--variant", "avx513"], 12),
        (["--variant", "baseline", "--release", "0.31.7"], 13),
        (["--variant", "baseline", "--release", "newest"], 13),
        (["--variant", "baseline", "--python-version", "three"], 14),
        (["--variant", "baseline", "--python-version", "3.9"], 14),
    ],
    ids=["variant", "release", "release that is no version", "Python that is no version", "unsupported Python"],
)
def test_wrong_word_ends_with_three_lines_and_a_code_of_its_own(settings_environment, arguments, code):
    """What happened, why, what to do: nothing else."""
    assert wrong(run("build", "--no-verify", *arguments)) == (code, ["error:", "why:", "do:"])


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"VLLM_WHEELS_INDEX__URL": "http://127.0.0.1:9/simple"}, 31),
        ({"VLLM_WHEELS_SOURCE__ORIGIN": "git", "VLLM_WHEELS_SOURCE__GIT_URL": "file:///nowhere"}, 32),
        ({"VLLM_WHEELS_BUILDER__KIND": "container", "DOCKER_HOST": "unix:///nowhere.sock"}, 64),
        ({"VLLM_WHEELS_BUILDER__MINIMUM_COMPILER": "99"}, 61),
        ({"VLLM_WHEELS_BUILDER__MAX_JOBS": "many"}, 11),
        ({"VLLM_WHEELS_BUILDER__MAX_JOB": "1"}, 11),
    ],
    ids=["index", "git host", "engine", "compiler too old", "wrong value", "misspelt setting"],
)
def test_unusable_surroundings_end_with_three_lines_and_a_code_of_their_own(settings_environment, environment, code):
    """Servers that do not answer and tools that will not do are told apart."""
    done = run("build", "--no-verify", "--variant", "baseline", **environment)
    assert wrong(done) == (code, ["error:", "why:", "do:"])


def test_cuda_torch_is_an_error_before_any_compile(settings_environment):
    """Without a CPU build of torch in reach, nothing is compiled."""
    reach = {"VLLM_WHEELS_INDEX__FIND_LINKS": "[]", "PIP_FIND_LINKS": "", "VLLM_WHEELS_TORCH__PACKAGES": '["torch"]'}
    done = run("build", "--no-verify", "--variant", "baseline", **reach)
    assert wrong(done) == (41, ["error:", "why:", "do:"])
    assert COMPILING not in done.stdout


def test_compile_error_names_the_line_and_the_log(settings_environment, tmp_path):
    """A source that does not compile ends with the compiler's own first error."""
    broken = tmp_path / "onednn"
    subprocess.run(["cp", "-r", os.environ["VLLM_WHEELS_ONEDNN__PATH"], str(broken)], check=True)
    source = next(broken.rglob("*.cpp"))
    source.write_text("this is no C++\n")
    done = run("build", "--no-verify", "--variant", "baseline", VLLM_WHEELS_ONEDNN__PATH=str(broken))
    assert wrong(done)[0] == 70
    assert f"{source.name}:1:1: error:" in done.stderr
    log = next(word for word in done.stderr.split() if word.endswith("build.log;"))
    assert "this is no C++" in Path(log.rstrip(";")).read_text()


def interrupted(number: signal.Signals) -> int:
    """Starts a build, sends it a signal once the compiler runs, and returns its exit status."""
    arguments = command("build", "--no-verify", "--variant", "baseline", "--verbose")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(COMPILING):
                break
        process.send_signal(number)
        process.stdout.read()
        return process.wait(30)


def compilers_below(folder: Path) -> list[str]:
    """Command lines of processes that work below a folder."""
    lines = [path.read_bytes().replace(b"\0", b" ").decode() for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [line for line in lines if str(folder) in line and "cc1plus" in line]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "kill"])
def test_interruption_leaves_no_compiler_and_the_next_run_continues(cold_compiler, tmp_path, number, status):
    """One interruption stops everything cleanly; typing the same command again finishes the wheel."""
    assert interrupted(number) == status
    assert compilers_below(tmp_path) == []
    done = run("build", "--no-verify", "--variant", "baseline")
    assert done.returncode == 0, done.stderr
    assert len(wheels_in(configuration.load().output_folder)) == 1


def test_killed_build_is_taken_up_where_it_was(cold_compiler):
    """After kill -9 nothing half-written is taken for a result, and what was compiled is used."""
    assert interrupted(signal.SIGKILL) == -signal.SIGKILL
    assert not list(configuration.load().state_folder.glob("store/wheel/*"))
    done = run("build", "--no-verify", "--variant", "baseline")
    assert done.returncode == 0, done.stderr
    assert "an earlier build was interrupted here" in done.stdout
    assert not list(configuration.load().state_folder.glob("store/staging/*"))


def test_finished_build_ends_with_a_table_and_the_folder(built):
    """The closing table names the wheel, its size, its hash and the verdict."""
    done = run("build", "--variant", "vllm-cpu")
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels_in(configuration.load().output_folder)
    assert wheel.name in done.stdout
    assert "passed" in done.stdout
    assert str(wheel.parent) in done.stdout


def test_build_folder_is_kept_when_asked_for(settings_environment):
    """--no-cleanup leaves the build folder, as the scripts of old did."""
    done = run("build", "--no-verify", "--variant", "baseline", "--no-cleanup", "--output-dir", "elsewhere")
    assert done.returncode == 0, done.stderr
    assert list(configuration.load().state_folder.glob("build/baseline-0.32.0-*/source/setup.py"))
    assert len(wheels_in(Path("elsewhere"))) == 1
