"""What a release demands is read out of its tree; a tree of an unknown layout is refused with the file's name."""

from __future__ import annotations

import pytest

from vllm_wheels.core.errors import SourceError, UnknownFamilyError
from vllm_wheels.core.patches.upstream import read
from vllm_wheels_tests.core.small_trees import CPU, FILES, HOST_DETECTED, PYPROJECT, SETUP, UNIFIED, tree

CMAKE = "cmake/cpu_extension.cmake"


def test_unified_tree_is_recognised(tmp_path):
    """A tree with a list of AVX2 sources and a target _C_AVX2 is of the unified family."""
    assert read(tree(tmp_path), release="0.32.0").family == "unified"


def test_host_detected_tree_is_recognised(tmp_path):
    """A tree that reads /proc/cpuinfo and knows the VLLM_CPU_AVX512 switches is of the host-detected family."""
    assert read(tree(tmp_path, {CMAKE: HOST_DETECTED}), release="0.32.0").family == "host-detected"


@pytest.mark.parametrize(
    "text",
    [
        "# nothing",
        "\n".join(f"# {line}" for line in UNIFIED.splitlines()),
        UNIFIED.replace("_C_AVX2", "_C_SSE").replace("$ENV", ""),
        HOST_DETECTED.replace("/proc/cpuinfo", "/proc/other"),
    ],
    ids=["nothing", "all in comments", "target gone", "reads something else"],
)
def test_unknown_layout_is_refused(tmp_path, text):
    """A tree of a third family is refused; I am told release, file and what was looked for."""
    with pytest.raises(UnknownFamilyError, match=r"0\.32\.0") as caught:
        read(tree(tmp_path, {CMAKE: text}), release="0.32.0")
    assert CMAKE in caught.value.why
    assert "_C_AVX2" in caught.value.why or "VLLM_EXT_SRC_AVX2" in caught.value.why


def test_folder_that_is_no_vllm_tree_is_refused(tmp_path):
    """An empty folder is not a source tree."""
    with pytest.raises(UnknownFamilyError, match=str(tmp_path)) as caught:
        read(tmp_path, release="0.32.0")
    assert CMAKE in caught.value.why


def test_torch_pin_is_that_of_x86_64(tmp_path):
    """Of the pins in cpu.txt the one counts whose marker fits x86-64 Linux, without its local part."""
    assert read(tree(tmp_path), release="0.32.0").torch == "2.13.0"


def test_torch_pin_of_the_build_requirements_stands_in(tmp_path):
    """Where cpu.txt pins no torch for x86-64, the build requirements' pin is taken."""
    changes = {"requirements/cpu.txt": "-r common.txt\n", "requirements/build/cpu.txt": "torch==2.6.0+cpu\n"}
    assert read(tree(tmp_path, changes), release="0.32.0").torch == "2.6.0"


@pytest.mark.parametrize(
    "asked", ["torch>=2.13,<2.14", "torch~=2.13.0", "torch==2.13.*", "torch @ https://a.invalid/t"]
)
def test_torch_that_is_not_pinned_is_that_of_the_build(tmp_path, asked):
    """Where the runtime requirement allows several, the version counts that upstream builds against."""
    changes = {"requirements/cpu.txt": f"-r common.txt\n{asked}\n"}
    assert read(tree(tmp_path, changes), release="0.32.0").torch == "2.13.0"


def test_torch_of_the_build_must_be_one_that_may_be_installed(tmp_path):
    """A release that builds against a torch that it does not allow beside it is refused."""
    changes = {"requirements/cpu.txt": "torch>=2.14\n"}
    with pytest.raises(SourceError, match=r"requirements/cpu\.txt") as caught:
        read(tree(tmp_path, changes), release="0.32.0")
    assert "torch>=2.14" in caught.value.why


@pytest.mark.parametrize("option", ["-c constraints.txt", "--constraint constraints.txt", "-e .", "--no-binary :all:"])
def test_option_that_changes_what_is_required_is_refused(tmp_path, option):
    """A constraints file that upstream begins to use is not left out in silence."""
    changes = {"requirements/cpu.txt": f"{CPU}{option}\n", "constraints.txt": "numpy<2\n"}
    with pytest.raises(SourceError, match=r"requirements/cpu\.txt"):
        read(tree(tmp_path, changes), release="0.32.0")


def test_release_before_the_first_one_is_refused(tmp_path):
    """0.8.4 looks like 0.8.5 and is not tried: nobody has looked at it."""
    with pytest.raises(UnknownFamilyError, match=r"0\.8\.4 is not supported"):
        read(tree(tmp_path, {"PKG-INFO": None}), release="0.8.4")


def test_older_layout_of_build_requirements_is_known(tmp_path):
    """Until 0.19 the file was requirements/cpu-build.txt."""
    changes = {"requirements/build/cpu.txt": None, "requirements/cpu-build.txt": "setuptools==77.0.3\n"}
    assert "setuptools==77.0.3" in read(tree(tmp_path, changes), release="0.32.0").build_requirements


@pytest.mark.parametrize(
    ("cpu", "why"),
    [
        ("torch==2.9.0; platform_machine == 'aarch64'\n", "pins no torch"),
        ("torch>=2.9\n", "pins no torch"),
        ("torch==2.9.0\ntorch==2.10.0\n", "more than once"),
    ],
    ids=["other machine", "no exact version", "two versions"],
)
def test_tree_without_one_torch_pin_is_refused(tmp_path, cpu, why):
    """No torch, or several, for x86-64 is an error that names cpu.txt."""
    changes = {"requirements/cpu.txt": cpu, "requirements/build/cpu.txt": None}
    with pytest.raises(SourceError, match=r"requirements/cpu\.txt") as caught:
        read(tree(tmp_path, changes), release="0.32.0")
    assert why in caught.value.why


def test_pythons_are_classified_and_allowed(tmp_path):
    """A Python counts if a classifier names it and requires-python lets it in, the lowest first."""
    assert read(tree(tmp_path), release="0.32.0").pythons == ("3.11", "3.12", "3.13")


def test_python_bound_by_a_micro_version_counts(tmp_path):
    """With requires-python >=3.10.2, Python 3.10 is supported."""
    changes = {"pyproject.toml": PYPROJECT.replace(">=3.11,", ">=3.10.2,")}
    assert read(tree(tmp_path, changes), release="0.32.0").pythons[0] == "3.10"


def test_onednn_is_that_of_x86_64(tmp_path):
    """Of two declarations, the one for other processors is left aside."""
    upstream = read(tree(tmp_path), release="0.32.0")
    assert (upstream.onednn_url, upstream.onednn_tag) == ("https://git.invalid/oneDNN.git", "v3.13")


def test_onednn_in_an_elseif_is_told_apart(tmp_path):
    """The host-detected family names POWER's oneDNN in an elseif."""
    assert read(tree(tmp_path, {CMAKE: HOST_DETECTED}), release="0.32.0").onednn_tag == "v3.7.1"


@pytest.mark.parametrize(("text", "tag"), [(UNIFIED, "v3.13"), (HOST_DETECTED, "v3.7.1")], ids=["unified", "host"])
@pytest.mark.parametrize("comment", ["#[[\n{}\n]]\n", "#[=[ {} ]] ]=]\n"])
def test_onednn_that_is_commented_out_does_not_count(tmp_path, text, tag, comment):
    """A release that comments its former oneDNN out in a bracket comment has one oneDNN."""
    former = comment.format("FetchContent_Declare(oneDNN GIT_REPOSITORY https://git.invalid/old.git\nGIT_TAG v2.7)")
    assert read(tree(tmp_path, {CMAKE: former + text}), release="0.32.0").onednn_tag == tag


@pytest.mark.parametrize(
    "text",
    [
        UNIFIED.replace("oneDNN\n", "other\n"),
        UNIFIED.replace("ASIMD_FOUND", "SOMETHING"),
        UNIFIED.replace("v3", "${V}3"),
    ],
    ids=["none", "two", "by a variable"],
)
def test_tree_without_one_onednn_is_refused(tmp_path, text):
    """No oneDNN, or one that cannot be told, is an error that names the file."""
    with pytest.raises(SourceError, match=CMAKE):
        read(tree(tmp_path, {CMAKE: text}), release="0.32.0")


def test_extensions_are_those_of_an_x86_64_cpu_build(tmp_path):
    """Extensions of CUDA and of other processors are left out, without running setup.py."""
    upstream = read(tree(tmp_path), release="0.32.0")
    assert (upstream.extensions, upstream.later_extensions) == (("spinloop", "_C", "_C_AVX2"), ())


def test_extensions_of_later_pythons_are_told_apart(tmp_path):
    """An extension that upstream builds from Python 3.12 on is not among those of every Python (0.26.0 to 0.31.0)."""
    setup = SETUP.replace("if not _is_cuda():", "if not _is_cuda() and sys.version_info >= (3, 12):")
    upstream = read(tree(tmp_path, {"setup.py": setup}), release="0.32.0")
    assert (upstream.extensions, upstream.later_extensions) == (("_C", "_C_AVX2"), (("spinloop", "3.12"),))


@pytest.mark.parametrize(
    "setup",
    [
        SETUP.replace("if not _is_cuda():", "if torch.backends.mkl.is_available():"),
        SETUP.replace('name="vllm._C"', 'name=f"vllm._{flavour}"'),
        "ext_modules = []\n",
        "ext_modules = [\n",
        "for name in names:\n    ext_modules.append(CMakeExtension(name=name))\n",
    ],
    ids=["unknown condition", "computed name", "none", "no Python", "loop"],
)
def test_undecidable_extensions_are_refused(tmp_path, setup):
    """Which extensions there are is never guessed: setup.py is named in the error."""
    with pytest.raises(SourceError, match=r"setup\.py"):
        read(tree(tmp_path, {"setup.py": setup}), release="0.32.0")


def test_requirements_win_over_pyproject(tmp_path):
    """What both name is taken from the build requirements, and the rest from pyproject.toml."""
    assert read(tree(tmp_path), release="0.32.0").build_requirements == (
        "cmake>=3.26",
        "grpcio-tools==1.78.0",
        "setuptools==78.1.1",
        'torch==2.13.0+cpu; platform_machine == "x86_64" or platform_machine == "s390x"',
    )


def test_runtime_requirements_follow_includes(tmp_path):
    """The runtime requirements are all lines of cpu.txt and what it includes, without comments and options."""
    assert read(tree(tmp_path), release="0.32.0").runtime_requirements == (
        "regex",
        "numpy",
        'torch==2.13.0+cpu; platform_machine == "x86_64" or platform_machine == "s390x"',
        'torch==2.9.0; platform_machine == "aarch64"',
    )


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("requirements/cpu.txt", None),
        ("requirements/cpu.txt", CPU + "-r missing.txt\n"),
        ("requirements/cpu.txt", CPU + "-r cpu.txt\n"),
        ("requirements/cpu.txt", CPU + "-r ../../outside.txt\n"),
        ("requirements/cpu.txt", CPU + "this is no requirement\n"),
        ("pyproject.toml", None),
        ("pyproject.toml", "[project"),
        ("pyproject.toml", PYPROJECT.replace(">=3.11,<3.14", "three")),
        ("pyproject.toml", "[project]\n"),
        ("pyproject.toml", PYPROJECT.replace("[project]", "[[project]]")),
        ("pyproject.toml", "[project]\nclassifiers = 5\n"),
        ("pyproject.toml", f"x = {'[' * 9000}"),
        ("setup.py", None),
        ("PKG-INFO", "Version: soon\n"),
    ],
)
def test_file_that_cannot_be_understood_is_named(tmp_path, file, text):
    """A missing or broken file of the tree is an error that names it."""
    (tmp_path / "outside.txt").write_text("numpy\n")
    with pytest.raises(SourceError) as caught:
        read(tree(tmp_path / "tree", {file: text}), release="0.32.0")
    assert file in caught.value.what or "requirements/missing.txt" in caught.value.what


def test_tree_of_another_release_is_refused(tmp_path):
    """A tree that says it is 0.31.0 is not built as 0.32.0."""
    changes = {"PKG-INFO": FILES["PKG-INFO"].replace("0.32.0", "0.31.0")}
    with pytest.raises(SourceError, match=r"0\.32\.0") as caught:
        read(tree(tmp_path, changes), release="0.32.0")
    assert "0.31.0" in caught.value.why


def test_repository_without_metadata_is_taken_for_the_release(tmp_path):
    """A git tree has no PKG-INFO; its release is the one that was asked for."""
    assert read(tree(tmp_path, {"PKG-INFO": None}), release="0.32.0").release == "0.32.0"
