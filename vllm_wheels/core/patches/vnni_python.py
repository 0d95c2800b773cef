"""Has vLLM's Python ask our predicates where it asks for AMX before kernels of int4 and int8; none answers for AMX."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

from vllm_wheels.core.patches.tree import Tree

TEMPLATE = "vnni_kernels.py"
PREDICATES = "vllm/_vnni_kernels.py"
IMPORT = "from vllm import _vnni_kernels\n"
INT4_LINEAR = "vllm/model_executor/kernels/linear/mixed_precision/cpu.py"
LINEAR = "vllm/model_executor/layers/utils.py"
EXPERTS = "vllm/model_executor/layers/fused_moe/experts/cpu_moe.py"
EXPERT_CLASSES = ("CPUExpertsInt4", "CPUExpertsInt8")
AMX = "torch.cpu._is_amx_tile_supported()"
W4A8, SWITCH = "layer.use_w4a8", "envs.VLLM_CPU_INT4_W4A8"
INT8_CHECK, INT8_PARAMETERS = "check_cpu_sgl_kernel", ["n", "k", "dtype"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What stands between two nodes of a syntax tree, and the code in its place."""

    first: ast.expr | ast.stmt
    last: ast.expr | ast.stmt
    new: str


def change(tree: Tree) -> None:
    """Adds the predicates, and calls them.

    Raises:
        PatchError: a question is not where the patch knows it.
    """
    tree.write(PREDICATES, files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    _int4_linear(tree)
    _int8_linear(tree)
    # Before 0.28.0 there is no such file, and experts ask nothing.
    if tree.has(EXPERTS):
        _experts(tree)


def _int4_linear(tree: Tree) -> None:
    nodes = ast.walk(ast.parse(tree.text(INT4_LINEAR)))
    found = [node.value for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == W4A8]
    if len(found) != 1 or not isinstance(found[0], ast.BoolOp):
        raise tree.missing(INT4_LINEAR, f"{W4A8} = ... and ...", found=len(found))
    terms = [ast.unparse(value) for value in found[0].values]
    kept = [term for term in terms if "act_type" not in term and "amx" not in term]
    if len(kept) != len(terms) - 2 or SWITCH not in kept:
        raise tree.misfit(INT4_LINEAR, why=f"{INT4_LINEAR} says {W4A8} = {' and '.join(terms)}")
    condition = " and ".join([*kept, "_vnni_kernels.takes_int4(self.config)"])
    _replace(tree, INT4_LINEAR, [Place(first=found[0], last=found[0], new=condition)])


def _int8_linear(tree: Tree) -> None:
    nodes = ast.walk(tree.module(LINEAR))
    found = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == INT8_CHECK]
    asks = len(found) == 1 and AMX in ast.unparse(found[0])
    if not asks or [argument.arg for argument in found[0].args.args] != INT8_PARAMETERS:
        anchor = f"def {INT8_CHECK}({', '.join(INT8_PARAMETERS)}): ... {AMX}"
        raise tree.missing(LINEAR, anchor, found=len(found))
    body = found[0].body
    new = "return dtype == torch.int8 and _vnni_kernels.takes_int8(n, k)"
    _replace(tree, LINEAR, [Place(first=body[0], last=body[-1], new=new)])


def _experts(tree: Tree) -> None:
    module = tree.module(EXPERTS)
    classes = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name in EXPERT_CLASSES]
    nodes = [node for each in classes for node in ast.walk(each)]
    found = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node) == AMX]
    asked = sum(ast.unparse(each).count("_is_amx") for each in classes)
    if asked != len(found) or len(found) not in (0, len(classes)):
        names = ", ".join(each.name for each in classes)
        raise tree.misfit(EXPERTS, why=f"{names} of {EXPERTS} ask {asked} times for AMX, {len(found)} times by {AMX}")
    if found:
        _replace(tree, EXPERTS, [Place(first=node, last=node, new="_vnni_kernels.has_experts()") for node in found])


def _replace(tree: Tree, path: str, places: Iterable[Place]) -> None:
    """Puts code in the places of nodes, and the import before the first of vLLM's own."""
    # The syntax tree counts columns in bytes of UTF-8.
    data = tree.text(path).encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for place in sorted(places, key=lambda place: -place.first.lineno):
        assert place.last.end_lineno is not None  # noqa: S101 - ast.parse sets the ends of every node
        assert place.last.end_col_offset is not None  # noqa: S101
        start = starts[place.first.lineno - 1] + place.first.col_offset
        end = starts[place.last.end_lineno - 1] + place.last.end_col_offset
        data = data[:start] + place.new.encode() + data[end:]
    made, count = re.subn(r"^from vllm\b", f"{IMPORT}from vllm", data.decode(), count=1, flags=re.MULTILINE)
    if not count:
        raise tree.missing(path, "from vllm")
    tree.write(path, made)
