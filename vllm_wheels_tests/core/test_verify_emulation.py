"""The emulated CPU: code of the variant's level runs on it, and the first instruction above convicts the wheel."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.variants import variant
from vllm_wheels.core.verify.checks import RunOptions
from vllm_wheels.core.verify.runs import emulation
from vllm_wheels.core.verify.runs.emulation import CHECKS, EMULATORS, UNDER_A_SHELL, copy_emulator, cpu_of, judged
from vllm_wheels.core.verify.test_run import HERE, PROGRAMS, TEMPORARY
from vllm_wheels_tests.core import elf

PROGRAM = """\
#include <stdio.h>
int main(void) {
  puts("{\\"probe\\": \\"torch\\", \\"capability\\": \\"AVX2\\"}");
  fflush(stdout);
  __asm__ volatile("%s");
  puts("{\\"probe\\": \\"emulated\\", \\"extension\\": \\"_C.abi3.so\\", \\"agree\\": true, \\"differences\\": {}}");
  return 0;
}
"""
TORCH = json.dumps({"probe": "torch", "capability": "AVX2"})

needs_qemu = pytest.mark.skipif(not any(map(shutil.which, EMULATORS)), reason="qemu-user is not installed")


@dataclass
class TestRun:
    """Where a check runs programs, here and without an environment."""

    folder: Path
    floor: tuple[str, ...]
    in_container: bool = False

    @property
    def place(self) -> str:
        """Where the emulator is."""
        return str(self.folder)

    @property
    def commands(self) -> tuple[Invocation, ...]:
        """Those of the check."""
        return CHECKS[0].planned(RunOptions(settings=None, left_out=(), floor=self.floor))

    def start(self, command: Invocation) -> Finished:
        """Runs it here; what stands in for Python is in this folder."""
        real = command.filled({PROGRAMS: self.place, HERE: self.place, TEMPORARY: self.place})
        return Runner().run(real.argv, timeout_seconds=60, keep_output=True, quiet=True, cwd=self.folder)


def finished(output: str, status: int) -> Finished:
    """How the probe may have ended."""
    return Finished(argv=("qemu",), status=status, seconds=1.0, tail=(), output=output)


def tried(folder: Path, instruction: str, name: str = "baseline"):
    """The judgement of the check over a program that executes one instruction and then says that all is well."""
    source = folder / "program.c"
    source.write_text(PROGRAM % instruction)
    subprocess.run(["gcc", "-w", "-o", folder / "python", source], check=True, timeout=60)
    return CHECKS[0].judge(TestRun(folder, variant(name).floor))


@needs_qemu
@pytest.mark.parametrize("instruction", [elf.AVX2, elf.FMA], ids=["AVX2", "FMA"])
def test_code_of_the_lowest_level_runs(tmp_path, instruction):
    """A program that keeps to what baseline promises runs on the emulated CPU."""
    judgement = tried(tmp_path, instruction)
    assert (judgement.verdict, judgement.line) == ("passed", "_C.abi3.so loads and computes on an emulated Haswell")


@needs_qemu
@pytest.mark.parametrize("instruction", [elf.AVX512, elf.AVX512VL, elf.VNNI], ids=["AVX512F", "AVX512VL", "VNNI"])
def test_first_instruction_above_the_level_convicts(tmp_path, instruction):
    """A program with one AVX-512 instruction dies of it, though this machine's own CPU may know it."""
    judgement = tried(tmp_path, instruction)
    assert judgement.verdict == "convicted"
    assert judgement.line == "dies of an illegal instruction on an emulated Haswell"


@pytest.mark.parametrize("name", ["avx512", "avx512vnni", "avx512bf16", "amxbf16"])
def test_level_that_cannot_be_emulated_is_skipped(tmp_path, name):
    """Qemu knows no AVX-512, so nothing is said about those wheels."""
    assert CHECKS[0].judge(TestRun(tmp_path, variant(name).floor)).verdict == "skipped"


def test_wheel_of_an_unknown_variant_is_skipped(tmp_path):
    """Without a floor there is nothing to emulate."""
    assert cpu_of(TestRun(tmp_path, ())) == ""


def test_missing_emulator_is_no_verdict(tmp_path, monkeypatch):
    """I am told what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotVerifyError) as caught:
        copy_emulator(tmp_path, static=False)
    assert caught.value.remedy == "apt-get install qemu-user-static"


def test_container_takes_no_emulator_that_needs_this_hosts_libraries(tmp_path, monkeypatch):
    """A qemu that is linked to this host's libraries is not carried into a container."""
    program = tmp_path / EMULATORS[1]
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "test_run").mkdir()
    assert copy_emulator(tmp_path / "test_run", static=False).read_text("utf-8") == "#!/bin/sh\n"
    with pytest.raises(CannotVerifyError, match="no emulator"):
        copy_emulator(tmp_path / "test_run", static=True)


def test_emulator_that_cannot_run_torch_is_no_verdict():
    """An old qemu on which torch itself dies says nothing about the wheel."""
    with pytest.raises(CannotVerifyError, match="does not emulate Haswell") as caught:
        judged(finished("qemu: uncaught target signal 4\n", 132), "Haswell")
    assert "7.2" in caught.value.remedy


@pytest.mark.parametrize(
    ("output", "status", "line"),
    [
        (TORCH, 1, "ends with status 1"),
        (TORCH, 0, "ends with status 0"),
        (
            f'{TORCH}\n{{"probe": "emulated", "extension": "_C", "agree": false, "differences": {{"a": 9.0}}}}',
            0,
            "computes something else",
        ),
    ],
    ids=["dies", "silent", "wrong"],
)
def test_extension_that_does_not_compute_is_convicted(output, status, line):
    """An extension that ends early or computes something else is convicted with that."""
    judgement = judged(finished(output, status), "Haswell")
    assert judgement.verdict == "convicted"
    assert judgement.line.startswith(line)


def test_emulator_is_not_the_first_process_of_a_container():
    """Qemu kills itself by a signal, which the first process of a container would ignore for ever."""
    assert UNDER_A_SHELL[0] == "sh"
    assert 'exit "$?"' in UNDER_A_SHELL[2]
    assert emulation.ILLEGAL == 128 + 4
