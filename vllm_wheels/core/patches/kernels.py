"""Makes vLLM import the wheel's one extension on x86-64, and fail at once where that is impossible.

Upstream chooses among its extensions by what the CPU says and turns a missing one into a warning, after which the first
call of a kernel fails with an unrelated message. A variant's wheel has one extension, whatever the CPU says.
"""

from __future__ import annotations

import ast

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

CPU = "vllm/platforms/cpu.py"
CHOICE = "import_kernels"
CONDITION = "CpuArchEnum.X86"
ONE_EXTENSION = """\
{indent}# The wheel has one extension for x86-64. Nothing works without it, so an ImportError is not caught.
{indent}import vllm._C  # noqa: F401
"""


def apply(tree: Tree, wanted: Wanted) -> None:
    """Replaces the x86 branch of ``import_kernels``; a whole build keeps upstream's choice."""
    if wanted.whole:
        return
    branch = _branch(tree.module(CPU))
    if branch is None:
        raise tree.missing(CPU, f"def {CHOICE}(cls): if ... {CONDITION}")
    first, last = branch.body[0], branch.body[-1]
    lines = tree.lines(CPU)
    # A comment between the condition and the first statement belongs to what is replaced.
    start, end = branch.test.end_lineno, last.end_lineno
    assert start is not None  # noqa: S101 - ast.parse sets the ends of every node
    assert end is not None  # noqa: S101
    replacement = ONE_EXTENSION.format(indent=" " * first.col_offset)
    tree.write(CPU, "".join([*lines[:start], replacement, *lines[end:]]))


def _branch(module: ast.Module) -> ast.If | None:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == CHOICE:
            for statement in node.body:
                if isinstance(statement, ast.If) and CONDITION in ast.unparse(statement.test):
                    return statement
    return None


PATCH = Patch(name="kernels", apply=apply, families=("unified",))
