"""The wheel holds the guard that refuses CPUs below its level, and imports it first."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.utils import canonicalize_name

from vllm_wheels.core.patches.guard_files import GUARD, INIT
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, passed, skipped
from vllm_wheels.core.verify.finding import Severity
from vllm_wheels.core.verify.unpacked import UnpackedWheel

TABLE = "WHEEL"
MODULE = "_cpu_guard"
REMEDY = "build it with vllm-wheels, whose patch 'guard' puts the module in"


def _guard(unpacked: UnpackedWheel) -> Judgement:
    if INIT not in unpacked.file.members:
        return skipped("it holds no package vllm")
    severity: Severity = "error" if unpacked.ours else "warning"
    if GUARD not in unpacked.file.members:
        line = "on a lesser CPU it dies of an illegal instruction: there is no guard"
        return convicted(line, remedy=REMEDY, severity=severity)
    table = guard_table(unpacked.text(GUARD))
    faults = list(_faults(unpacked, table)) if table else [f"{GUARD} has no table {TABLE}"]
    if not _refuses(unpacked.text(GUARD)):
        faults.append(f"{GUARD} refuses nobody: importing it calls nothing that raises an error")
    if not _comes_first(unpacked.text(INIT)):
        faults.append(f"{INIT} does not import it before anything else")
    if faults:
        return convicted(faults[0], evidence="\n".join(faults), remedy=REMEDY, severity=severity)
    return passed(f"refuses CPUs without {', '.join(table['floor'])}")


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
        yield f"the guard asks for {', '.join(table['floor'])}, {unpacked.variant.name} needs {unpacked.variant.floor}"


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
    Check("guard", "look for the guard against lesser CPUs", _guard, inputs=("variant",)),
)
