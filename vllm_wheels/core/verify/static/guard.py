"""The wheel refuses CPUs below its level: its guard, which is imported first, and a note for the system's loader."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from packaging.utils import canonicalize_name

from vllm_wheels.core.patches.guard_files import GUARD, INIT
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.finding import Severity
from vllm_wheels.core.verify.static.machine_code import SCAN_TOOLS
from vllm_wheels.core.verify.unpacked import UnpackedWheel

TABLE = "WHEEL"
MODULE = "_cpu_guard"
LEVEL_3 = frozenset({"AVX", "AVX2", "FMA", "F16C"})
"""Kinds of instructions, as iced-x86 calls them, of which one makes an extension need x86-64-v3."""

REMEDY = "build it with vllm-wheels, whose patch 'guard' puts the module in"


def _guard(unpacked: UnpackedWheel) -> Judgement:
    if INIT not in unpacked.file.members:
        return skipped("it holds no package vllm")
    severity: Severity = "error" if unpacked.ours else "warning"
    if GUARD not in unpacked.file.members:
        line = f"there is no guard ({GUARD}), which tells whose CPU is too old what to install"
        return convicted(line, remedy=REMEDY, severity=severity)
    table = guard_table(unpacked.text(GUARD))
    faults = list(_faults(unpacked, table)) if table else [f"{GUARD} has no table {TABLE}"]
    if not _refuses(unpacked.text(GUARD)):
        faults.append(f"{GUARD} refuses nobody: importing it calls nothing that raises an error")
    if not _comes_first(unpacked.text(INIT)):
        faults.append(f"{INIT} does not import it before anything else")
    faults += _unnoted(unpacked)
    if faults:
        return convicted(faults[0], evidence="\n".join(faults), remedy=REMEDY, severity=severity)
    levels = ", ".join(sorted({binary.level for binary in unpacked.binaries if binary.level}))
    loader = f"; for the loader it notes {levels}" if levels else ""
    return passed(f"refuses CPUs without {', '.join(table['floor'])}{loader}")


def guard_table(source: str) -> Mapping[str, Any]:
    """The table in the module's source, read without running it; empty where there is none."""
    try:
        body = ast.parse(source).body
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == TABLE:
                found = ast.literal_eval(node.value) if node.value else {}
                return found if isinstance(found, dict) and "floor" in found else {}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return {}
    return {}


def _refuses(source: str) -> bool:
    """Whether importing the module calls, directly or not, a function of it that raises an error."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    todo: list[ast.AST] = [
        node for node in body if isinstance(node, ast.Expr | ast.If | ast.Raise) and not _never(node)
    ]
    seen: set[str] = set()
    while todo:
        for node in ast.walk(todo.pop()):
            if isinstance(node, ast.Raise):
                return True
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if name in functions and name not in seen:
                seen.add(name)
                todo.extend(_reachable(functions[name].body))
    return False


def _never(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and not node.test.value


def _reachable(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a function up to a ``return`` that nothing is a condition of."""
    ends = next((index for index, node in enumerate(body) if isinstance(node, ast.Return)), len(body))
    return [node for node in body[:ends] if not _never(node)]


def _faults(unpacked: UnpackedWheel, table: Mapping[str, Any]) -> Iterator[str]:
    if canonicalize_name(str(table.get("distribution"))) != unpacked.distribution:
        yield f"the guard speaks of {table.get('distribution')}, the wheel is {unpacked.distribution}"
    if unpacked.variant and table.get("variant") != unpacked.variant.name:
        yield f"the guard is that of {table.get('variant')}, the wheel is {unpacked.variant.name}"
    elif unpacked.variant and set(table["floor"]) != set(unpacked.variant.floor):
        asked, needed = (", ".join(flags) for flags in (table["floor"], unpacked.variant.floor))
        yield f"the guard asks for {asked}, {unpacked.variant.name} needs {needed}"


def _unnoted(unpacked: UnpackedWheel) -> Iterator[str]:
    """The extensions that the loader would let a CPU execute which lacks their instructions."""
    noted = {binary.name: binary.level for binary in unpacked.binaries}
    for file in unpacked.scan.own:
        if (needed := level_of(file.features)) > noted[file.name]:
            yield f"{file.name} notes {noted[file.name] or 'no level'} for the loader, its instructions need {needed}"


def level_of(features: Iterable[str]) -> str:
    """The level of the x86-64 psABI that instructions of these kinds need; empty for lower ones, which need no note."""
    if any(fnmatchcase(name, "AVX512*") for name in features):
        return "x86-64-v4"
    return "x86-64-v3" if LEVEL_3.intersection(features) else ""


def _comes_first(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return False
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        imported = isinstance(node, ast.Import | ast.ImportFrom) and node.names[0].name in {MODULE, f"vllm.{MODULE}"}
        return imported and (not isinstance(node, ast.ImportFrom) or node.level == 1 or node.module == "vllm")
    return False


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check(
        "guard",
        "look for the guard against lesser CPUs, and for the loader's",
        _guard,
        inputs=("variant",),
        tools=("packaging", *SCAN_TOOLS),
    ),
)
