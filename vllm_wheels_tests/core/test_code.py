"""What of our own code moves a key: every real change, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vllm_wheels.core.engine.code import Code, installed, normalised

ROOT = installed().root
READER = ROOT / "core/formats/elf.py"
STATIC = "vllm_wheels.core.verify.static"


def digest(root: str, path: Path, text: str) -> str:
    return Code(ROOT, changed={path: text}).digest((root,))


def test_comments_docstrings_and_layout_move_nothing():
    """I explain a module better, and no wheel is judged again."""
    text = READER.read_text("utf-8")
    _, _, rest = text.partition('"""\n')
    explained = f'"""Something else."""\n# A comment.\n\n\n{rest}'
    assert digest(STATIC, READER, explained) == Code(ROOT).digest((STATIC,))


def test_real_change_moves_whatever_reaches_it():
    """A corrected reader of ELF files, imported by way of others, lets every wheel be judged again."""
    text = READER.read_text("utf-8")
    assert digest(STATIC, READER, f"{text}\nCORRECTED = True\n") != Code(ROOT).digest((STATIC,))


def test_change_that_is_not_reached_moves_nothing():
    """An edit of the uploader makes no wheel stale."""
    path = ROOT / "core/publish/upload.py"
    assert path not in Code(ROOT).reached([STATIC])
    assert digest(STATIC, path, "CHANGED = True\n") == Code(ROOT).digest((STATIC,))


@pytest.mark.parametrize(
    ("root", "file"),
    [
        ("vllm_wheels.core.artifacts.tools", "core/artifacts/tools/tools.toml"),
        ("vllm_wheels.core.artifacts.metadata", "core/patches/readme.md.tmpl"),
        ("vllm_wheels.core.builders.image", "core/builders/images.toml"),
        ("vllm_wheels.core.builders.image", "core/builders/debian.dockerfile"),
    ],
)
def test_data_that_a_module_names_moves_it(root, file):
    """Another pin of a tool, line of a template or recipe of an image counts like code, comments and all."""
    path = ROOT / file
    assert path in Code(ROOT).reached([root])
    assert digest(root, path, path.read_text("utf-8") + "# more\n") != Code(ROOT).digest((root,))


def test_variants_are_declared_one_by_one():
    """A flag of one variant does not count as code, for then it would touch all of them."""
    path = ROOT / "core/variants.toml"
    assert path not in Code(ROOT).reached(["vllm_wheels.core.variants"])


def test_imports_for_types_are_no_code():
    """What a module names only in annotations decides nothing."""
    text = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from vllm_wheels.core.publish import upload\n"
    code = Code(ROOT, changed={READER: text})
    assert ROOT / "core/publish/upload.py" not in code.reached(["vllm_wheels.core.formats.elf"])
    text = text.replace("if TYPE_CHECKING:", "def use():")
    code = Code(ROOT, changed={READER: text})
    assert ROOT / "core/publish/upload.py" in code.reached(["vllm_wheels.core.formats.elf"])


def test_syntax_tree_of_a_newer_python_has_the_same_hash():
    """Newer Pythons give nodes further fields, which are empty where the syntax is not used."""
    text = "def one(two):\n    return two\n"
    newer = ast.parse(text)
    newer.body[0]._fields = (*newer.body[0]._fields, "of_a_newer_python")
    newer.body[0].of_a_newer_python = []
    assert normalised(newer) == normalised(ast.parse(text))
