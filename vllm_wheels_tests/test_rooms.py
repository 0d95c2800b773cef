"""The rooms of the core: each imports only those below it, in every module, and nothing goes round in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vllm_wheels

PACKAGE = Path(vllm_wheels.__file__).parent
CORE = "vllm_wheels.core"
ROOMS = ("operations", "publish", "verify", "artifacts", "patches", "builders", "index", "engine", "formats", "host")
"""From the top down; modules that lie directly in the core are below them all."""

BASE = "base"
FLAT_MODULES = 12

IMPORT_ALL = """
import importlib, sys
sys.modules["dagster"] = None  # importing it fails
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted(name for name in sys.modules if name.startswith("dagster")))
"""


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of every module of the package, by name."""
    return {_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def core_modules() -> list[str]:
    return [name for name in modules() if f"{name}.".startswith(f"{CORE}.")]


def named(node: ast.AST) -> Iterator[str]:
    """What an import statement names, modules and what is taken from them."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def imports(name: str) -> set[str]:
    """Modules of ours that a module imports, wherever in it: for types and inside functions too."""
    found = {each for node in ast.walk(modules()[name]) for each in named(node) if each in modules()}
    return found - {name, CORE, PACKAGE.name}


def room(name: str) -> str:
    """The room of a module of the core."""
    parts = name.removeprefix(f"{CORE}.").split(".")
    return parts[0] if parts[0] in ROOMS else BASE


def test_every_folder_of_the_core_is_a_room():
    """A new folder has its place in the order, or this list and the documentation do not know it."""
    assert {path.name for path in (PACKAGE / "core").iterdir() if (path / "__init__.py").is_file()} == set(ROOMS)


@pytest.mark.parametrize("name", core_modules())
def test_room_imports_only_rooms_below_it(name):
    """Whoever reads the core from the top down never has to go back up, not even for a type."""
    order = [*ROOMS, BASE]
    upward = [
        other
        for other in imports(name)
        if not f"{other}.".startswith(f"{CORE}.") or order.index(room(other)) < order.index(room(name))
    ]
    assert sorted(upward) == []


def test_no_module_imports_itself_by_way_of_others():
    """There are no circles of imports, inside functions and for types neither."""
    reached = {name: _reached(name) for name in modules()}
    circles = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in modules()
        if name in reached[name]
    }
    assert sorted(circles) == []


def _reached(start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(imports(start))
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports(name)
    return seen


@pytest.mark.parametrize("name", core_modules())
def test_core_names_no_dagster(name):
    """The core serves a plain script, so it speaks of Dagster's package nowhere."""
    found = [each for node in ast.walk(modules()[name]) for each in named(node)]
    assert [each for each in found if each.split(".")[0].startswith("dagster")] == []


IN_WHEELS = {"vllm_wheels.core.patches.fp8_quantization", "vllm_wheels.core.patches.vnni_kernels"}


def test_core_can_be_imported_without_dagster():
    """Every module of the core loads where Dagster is not installed."""
    # Probes, and what goes into wheels as text, run in the environment of a wheel, beside vLLM and torch.
    here = [name for name in core_modules() if ".probes." not in name and name not in IN_WHEELS]
    argv = [sys.executable, "-c", IMPORT_ALL, *here]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "dagster"), done.stderr


def test_few_modules_lie_flat_in_the_core():
    """The tree tells the story; a module beside the rooms is the exception."""
    flat = [path.name for path in (PACKAGE / "core").glob("*.py") if path.name != "__init__.py"]
    assert len(flat) <= FLAT_MODULES
