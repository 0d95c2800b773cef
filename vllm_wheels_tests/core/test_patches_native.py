"""Native patches: what is compiled for a variant, in both families of source."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vllm_wheels.core.errors import PatchError, VariantNotInReleaseError
from vllm_wheels.core.formats.cmake import CMakeCommand, commands
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.patches.fixes import SCRATCH, TILES
from vllm_wheels.core.patches.kernels import CPU
from vllm_wheels.core.patches.upstream import CMAKE, SETUP
from vllm_wheels.core.variants import variants
from vllm_wheels_tests.core.patch_tree import SETUP as SETUP_TEXT
from vllm_wheels_tests.core.patch_tree import UNIFIED, wanted, write


def x86_targets(text: str) -> list[CMakeCommand]:
    """The extensions that the file defines, without the last one, which is for other processors."""
    return [command for command in commands(text) if command.name == "define_extension_target"][:-1]


def after(command: CMakeCommand, keyword: str) -> str:
    """The argument behind a keyword."""
    return command.arguments[command.arguments.index(keyword) + 1]


@pytest.mark.parametrize("name", list(variants()))
def test_variant_compiles_one_extension_with_its_flags(tmp_path, name):
    """A wheel of the unified family has one extension, _C, with the variant's sources, flags and definitions."""
    text = patched(write(tmp_path), wanted(name)).text(CMAKE)
    (target,) = x86_targets(text)
    assert target.arguments[0] == "_C"
    assert after(target, "SOURCES") == f"${{{variants()[name].sources[0]}}}"
    flags = target.arguments[target.arguments.index("COMPILE_FLAGS") + 1 : target.arguments.index("USE_SABI")]
    assert flags == ("${CXX_COMPILE_FLAGS}", *variants()[name].flags)


def test_variant_keeps_upstreams_libraries_and_definitions_of_its_sources(tmp_path):
    """The extension links and defines what upstream's own extension of the same sources does."""
    text = patched(write(tmp_path), wanted("amxbf16")).text(CMAKE)
    assert after(x86_targets(text)[0], "LIBRARIES") == "${_C_LIBS}"
    assert 'PRIVATE "-DCPU_CAPABILITY_OLD" "-DCPU_CAPABILITY_AMXBF16")' in text
    assert "-DCPU_CAPABILITY_AMXFP8" not in text


def test_lower_variant_gets_no_definition_of_the_highest(tmp_path):
    """The AVX2 wheel is not told that it has AMX."""
    text = patched(write(tmp_path), wanted("baseline")).text(CMAKE)
    assert "target_compile_definitions" not in text


def test_other_processors_keep_their_extension(tmp_path):
    """The branch for other processors stays as upstream wrote it."""
    text = patched(write(tmp_path), wanted()).text(CMAKE)
    assert UNIFIED[UNIFIED.rindex("else()") :] in text


@pytest.mark.parametrize("family", ["unified", "host-detected"])
@pytest.mark.parametrize(("name", "level"), [("baseline", "x86-64-v3"), ("avx512", "x86-64-v4")])
def test_linker_notes_the_level_of_the_variant(tmp_path, family, name, level):
    """The extension tells the system's loader what its instructions need."""
    text = patched(write(tmp_path, family), wanted(name, family=family)).text(CMAKE)
    assert text.count("LINKER:") == 1
    assert f'target_link_options(_C PRIVATE "LINKER:-z,{level}")' in text


def test_each_extension_of_a_whole_build_notes_its_own_level(tmp_path):
    """Upstream's extension for AVX2 loads where those for AVX-512 are refused."""
    text = patched(write(tmp_path), replace(wanted("baseline"), whole=True)).text(CMAKE)
    levels = {"_C": "x86-64-v4", "_C_AVX512": "x86-64-v4", "_C_AVX2": "x86-64-v3"}
    assert [line for line in text.splitlines() if "LINKER:" in line] == [
        f'target_link_options({target} PRIVATE "LINKER:-z,{level}")' for target, level in levels.items()
    ]


def test_extension_of_unknown_sources_gets_no_guessed_level(tmp_path):
    """I am told of an extension of which no variant says what it needs."""
    write(tmp_path)
    (tmp_path / CMAKE).write_text(UNIFIED.replace("SOURCES ${VLLM_EXT_SRC_AVX2}", "SOURCES ${VLLM_EXT_SRC_NEW}"))
    with pytest.raises(PatchError, match="_C_AVX2"):
        patched(tmp_path, replace(wanted("baseline"), whole=True))


def test_setup_declares_one_extension(tmp_path):
    """setup.py asks for no extension that is no longer defined."""
    text = patched(write(tmp_path), wanted()).text(SETUP)
    assert 'CMakeExtension(name="vllm._C")' in text
    assert "_C_AVX" not in text


def test_wheel_does_not_depend_on_libraries_of_the_build_machine(tmp_path):
    """Neither tcmalloc nor a Rust tool chain found on the build machine changes the wheel."""
    text = patched(write(tmp_path), wanted()).text(SETUP)
    assert "bundle_tcmalloc(self" not in text
    assert "    rust_extensions=[],\n" in text
    compile(text, SETUP, "exec")


def test_setup_that_bundles_in_an_unknown_way_is_an_error(tmp_path):
    """I am told where the bundling was rewritten."""
    write(tmp_path)
    (tmp_path / SETUP).write_text(SETUP_TEXT.replace("if should_bundle_tcmalloc():", "if True:"))
    with pytest.raises(PatchError, match=r"setup\.py .*looked for 'bundle_tcmalloc"):
        patched(tmp_path, wanted())


def test_release_without_the_list_cannot_be_built_as_the_variant(tmp_path):
    """A release that lacks the variant's sources says which list it looked for."""
    write(tmp_path)
    (tmp_path / CMAKE).write_text(UNIFIED.replace("set(VLLM_EXT_SRC_AVX512", "set(VLLM_EXT_SRC_WIDE"))
    with pytest.raises(VariantNotInReleaseError, match=r"vLLM 0\.33\.0 cannot be built as avx512") as caught:
        patched(tmp_path, wanted("avx512"))
    assert "has no list VLLM_EXT_SRC_AVX512" in caught.value.why


def older() -> str:
    """As in 0.17.1: the list for AVX-512 holds the kernels that need AMX, and the flags of oneDNN are its."""
    text = UNIFIED.replace('"csrc/cpu/shm.cpp"', '"csrc/cpu/sgl-kernels/gemm.cpp"')
    text = text.replace('    set(VLLM_EXT_SRC_SGL\n        "csrc/cpu/sgl-kernels/gemm.cpp")\n', "")
    return text.replace(" ${VLLM_EXT_SRC_SGL}", "").replace(
        "    target_compile_options(dnnl_ext PRIVATE ${CXX_COMPILE_FLAGS_AVX2} -fPIC)\n",
        "    list(APPEND DNNL_COMPILE_FLAGS ${CXX_COMPILE_FLAGS_AVX512})\n"
        "    target_compile_options(dnnl_ext PRIVATE ${DNNL_COMPILE_FLAGS} -fPIC)\n",
    )


@pytest.mark.parametrize("name", ["avx512", "avx512vnni", "avx512bf16"])
def test_release_whose_list_needs_amx_cannot_be_built_below_it(tmp_path, name):
    """0.17.1 as avx512vnni is refused, with the variants that it can be built as."""
    write(tmp_path)
    (tmp_path / CMAKE).write_text(older())
    with pytest.raises(VariantNotInReleaseError) as caught:
        patched(tmp_path, wanted(name))
    assert "baseline or amxbf16" in caught.value.remedy


@pytest.mark.parametrize(("name", "sources"), [("baseline", "AVX2"), ("amxbf16", "AVX512")])
def test_release_whose_list_needs_amx_can_be_built_otherwise(tmp_path, name, sources):
    """0.17.1 can be built as baseline and amxbf16, and its glue to oneDNN then runs on the lowest CPUs too."""
    write(tmp_path)
    (tmp_path / CMAKE).write_text(older())
    text = patched(tmp_path, wanted(name)).text(CMAKE)
    assert after(x86_targets(text)[0], "SOURCES") == f"${{VLLM_EXT_SRC_{sources}}}"
    assert "list(APPEND DNNL_COMPILE_FLAGS ${CXX_COMPILE_FLAGS_AVX2})" in text


def test_command_that_would_be_lost_is_an_error(tmp_path):
    """Whatever else upstream does between the extensions is not thrown away unread."""
    write(tmp_path)
    text = UNIFIED.replace(
        "    if (AMX_FP8_SUPPORTED)", "    target_link_options(_C PRIVATE -s)\n    if (AMX_FP8_SUPPORTED)"
    )
    (tmp_path / CMAKE).write_text(text)
    with pytest.raises(PatchError, match=r"target_link_options"):
        patched(tmp_path, wanted())


@pytest.mark.parametrize("family", ["unified", "host-detected"])
def test_build_machines_cpu_does_not_count(tmp_path, family):
    """The configure step sees the variant's CPU features, whatever machine builds."""
    text = patched(write(tmp_path, family), wanted("avx512", family, "0.16.1")).text(CMAKE)
    read, overwritten = text.index("OUTPUT_VARIABLE CPUINFO)"), text.index('set(CPUINFO "avx2 fma f16c avx512f')
    assert read < overwritten < text.index("CPUINFO_RET EQUAL")


def test_switches_in_the_environment_do_not_count(tmp_path):
    """VLLM_CPU_AMXBF16=1 in my shell does not turn my AVX-512 wheel into an AMX one."""
    text = patched(write(tmp_path, "host-detected"), wanted("avx512", "host-detected", "0.16.1")).text(CMAKE)
    assert text.startswith("unset(ENV{VLLM_CPU_AVX512BF16})\nunset(ENV{VLLM_CPU_AMXBF16})\n")


def test_flag_that_needs_no_code_is_added(tmp_path):
    """The AVX2 wheel uses FMA although upstream's flags of that time do not ask for it."""
    text = patched(write(tmp_path, "host-detected"), wanted("baseline", "host-detected", "0.16.1")).text(CMAKE)
    assert 'list(APPEND CXX_COMPILE_FLAGS "-mfma")' in text


def test_release_that_does_not_know_the_instruction_set_is_refused(tmp_path):
    """A release without AMX code does not become an AMX wheel in name only."""
    with pytest.raises(VariantNotInReleaseError, match=r"cannot be built as amxbf16") as caught:
        patched(write(tmp_path, "host-detected"), wanted("amxbf16", "host-detected", "0.11.0"))
    assert "-mamx-bf16" in caught.value.why


@pytest.mark.parametrize("family", ["unified", "host-detected"])
def test_hollow_variant_is_compiled_as_the_lower_one(tmp_path, family):
    """Where VNNI gains nothing, what is compiled is letter by letter what avx512 compiles."""
    write(tmp_path, family)
    vnni = wanted("avx512vnni", family, "0.16.1")
    same_code = replace(vnni, same_code=vnni.variant.same_code[0])
    lower = wanted("avx512", family, "0.16.1")
    assert patched(tmp_path, same_code).text(CMAKE) == patched(tmp_path, lower).text(CMAKE)
    assert patched(tmp_path, vnni).text(CMAKE) != patched(tmp_path, lower).text(CMAKE)


def test_whole_build_keeps_upstreams_extensions(tmp_path):
    """The unified build has every extension that upstream defines, and upstream's choice among them."""
    whole = patched(write(tmp_path), replace(wanted("baseline"), whole=True))
    names = ["_C", "_C_AVX512", "_C_AVX2"]
    assert [target.arguments[0] for target in x86_targets(whole.text(CMAKE))] == names
    assert all(f'CMakeExtension(name="vllm.{name}")' in whole.text(SETUP) for name in names)
    assert whole.text(CPU) == whole.original(CPU)


def test_mla_of_0_16_0_gets_its_vector_type(tmp_path):
    """0.16.0 compiles for CPUs without AVX512_BF16."""
    write(tmp_path, "host-detected")
    path = "csrc/cpu/mla_decode.cpp"
    (tmp_path / path).write_text(
        "#ifdef __AVX512BF16__\n#elif defined(__aarch64__)\ntemplate <>\nstruct KernelVecType<c10::BFloat16> {\n"
    )
    text = patched(tmp_path, wanted("baseline", "host-detected", "0.16.0")).text(path)
    assert "#elif defined(__aarch64__) || defined(__x86_64__)\n" in text


def test_release_that_is_older_than_its_torch_asks_that_torch_for_the_cache_size(tmp_path):
    """0.16.0 compiles with its own torch 2.10 and with the torch 2.13 that I set."""
    write(tmp_path, "host-detected")
    (tmp_path / "csrc/cpu/mla_decode.cpp").write_text(
        "#elif defined(__aarch64__)\ntemplate <>\nstruct KernelVecType<c10::BFloat16> {\n"
    )
    text = patched(tmp_path, wanted("baseline", "host-detected", "0.16.0")).text("csrc/cpu/utils.hpp")
    later, own = text[text.index("#if TORCH_VERSION") :].split("#else")
    assert "get_cpu_capabilities" in later
    assert "L2_cache_size()" in own
    assert "#include <torch/version.h>" in text


PROJECT = """\
cmake_minimum_required(VERSION 3.26)
project(small LANGUAGES CXX)
include(FetchContent)
FetchContent_Declare(oneDNN {how})
"""
JOINS = "FetchContent_MakeAvailable(oneDNN)"


def configured(folder: Path, built_once: Path, *, release: str, before: str) -> list[dict[str, str]]:
    """The compile commands where a release adds oneDNN after some lines, by the CMake of the build environment."""
    write(folder, "host-detected")
    text = (folder / CMAKE).read_text()
    (folder / CMAKE).write_text(text.replace(JOINS, f"{before}{JOINS}\n"))
    changed = patched(folder, wanted("avx512", "host-detected", release)).text(CMAKE)
    whole = changed[changed.index(before) : changed.index("if (ENABLE_AVX512BF16 AND")]
    (folder / "CMakeLists.txt").write_text(whole + "add_library(ours OBJECT ours.cpp)\n")
    (folder / "ours.cpp").touch()
    (folder / "onednn").mkdir()
    (folder / "onednn/theirs.cpp").touch()
    (folder / "onednn/CMakeLists.txt").write_text("add_library(dnnl OBJECT theirs.cpp)\n")
    (cmake,) = built_once.glob("state/store/torch_env/*/env/cmake/data/bin/cmake")
    options = ["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DCMAKE_CXX_COMPILER_WORKS=ON", "-DCMAKE_CXX_ABI_COMPILED=ON"]
    ninja = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={cmake.parents[3] / 'bin' / 'ninja'}")
    argv = [str(cmake), *ninja, "-S", str(folder), "-B", str(folder / "b"), *options]
    finished = Runner().run(argv, env={"FETCHCONTENT_SOURCE_DIR_ONEDNN": str(folder / "onednn")})
    assert finished.status == 0, finished.tail
    found: list[dict[str, str]] = json.loads((folder / "b/compile_commands.json").read_text())
    return found


def test_onednn_is_compiled_the_same_for_all_variants(tmp_path, built_once):
    """The AMX wheel of 0.16 takes oneDNN's objects from the cache that the AVX-512 wheel filled."""
    reading = PROJECT.format(how="SOURCE_DIR $ENV{FETCHCONTENT_SOURCE_DIR_ONEDNN}")
    before = f"{reading}add_compile_definitions(-DCPU_CAPABILITY_AMXBF16 KEPT)\n"
    told = configured(tmp_path, built_once, release="0.16.1", before=before)
    theirs, ours = (next(each["command"] for each in told if name in each["file"]) for name in ("theirs", "ours"))
    assert "-DKEPT" in theirs
    assert "CPU_CAPABILITY_AMXBF16" not in theirs
    assert "-DCPU_CAPABILITY_AMXBF16" in ours


def test_release_that_clones_onednn_is_given_the_source_that_was_fetched(tmp_path, built_once):
    """0.9.2 does not clone another oneDNN than the one that the pipeline looked at, and needs no network."""
    cloning = PROJECT.format(how="GIT_REPOSITORY https://clone.invalid/oneDNN.git GIT_TAG v3.7.1")
    told = configured(tmp_path, built_once, release="0.9.2", before=cloning)
    assert str(tmp_path / "onednn/theirs.cpp") in [each["file"] for each in told]


def test_release_that_defines_nothing_before_onednn_is_left_alone(tmp_path):
    """Up to 0.11.0 there is nothing to keep off oneDNN."""
    text = patched(write(tmp_path, "host-detected"), wanted("avx512", "host-detected", "0.11.0")).text(CMAKE)
    assert "_ONEDNN_DEFINITIONS" not in text


def test_release_that_gets_onednn_in_an_unknown_way_is_an_error(tmp_path):
    """I am told where the patch that shares oneDNN's objects looked."""
    write(tmp_path, "host-detected")
    text = (tmp_path / CMAKE).read_text()
    (tmp_path / CMAKE).write_text(text.replace("FetchContent_MakeAvailable(oneDNN)", "add_subdirectory(oneDNN)"))
    with pytest.raises(PatchError, match=r"looked for 'FetchContent_MakeAvailable"):
        patched(tmp_path, wanted("avx512", "host-detected", "0.16.1"))


def test_what_an_fp8_cache_becomes_for_amx_is_in_memory_before_a_tile_is_loaded(tmp_path):
    """The compiler does not leave out the writing of a tile; a release that writes it otherwise is refused."""
    write(tmp_path)
    assert TILES not in patched(tmp_path, wanted("amxbf16")).changed
    (tmp_path / TILES).write_text(f"void f() {{\n    {SCRATCH}    return scratch;\n}}\n")
    text = patched(tmp_path, wanted("amxbf16")).text(TILES)
    assert text.index(SCRATCH) < text.index('"memory"') < text.index("return scratch;")
    (tmp_path / TILES).write_text("void f() { deq_tile_amx<kv_cache_t>(other); }\n")
    with pytest.raises(PatchError, match=TILES):
        patched(tmp_path, wanted("amxbf16"))
