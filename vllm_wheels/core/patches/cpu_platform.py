"""Makes vLLM detect a CPU build although the wheel's version has no ``+cpu``, which the public index refuses.

vLLM searches its own version for ``cpu`` in one function of ``vllm/platforms/__init__.py``, and from 0.26 to 0.31 also
in ``vllm/triton_utils/importing.py``. ``VLLM_TARGET_DEVICE`` is not needed then. Wherever something is searched for in
the version of the wheel, by the call or by a variable that holds its answer, ``+cpu`` is appended.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

from vllm_wheels.core.formats.python_calls import aliases, dotted, span
from vllm_wheels.core.patches.lookups import SIGNS, VERSIONS
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

PLATFORMS = "vllm/platforms/__init__.py"
MARK = ' + "+cpu"'
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def apply(tree: Tree, wanted: Wanted) -> None:
    """Appends ``+cpu`` to the version wherever vLLM searches it.

    Raises:
        PatchError: the one place where every release does so is not found.
    """
    # The patch "lookups", which comes before, renamed what asks for the version.
    for path in [path for path in tree.code_with(*SIGNS) if path in tree.changed]:
        text = tree.text(path)
        ends = {span(text, node)[1] for node in _searched(tree.module(path), wanted.distribution)}
        for end in sorted(ends, reverse=True):
            text = text[:end] + MARK + text[end:]
        tree.write(path, text)
    if MARK not in tree.text(PLATFORMS):
        raise tree.missing(PLATFORMS, "return substr in vllm_version")


def _searched(module: ast.Module, distribution: str) -> Iterator[ast.expr]:
    """What stands right of an ``in`` and is, or holds, the version."""
    known = aliases(module)

    def asks(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Call)
            and dotted(node.func, known) in VERSIONS
            and any(isinstance(name, ast.Constant) and name.value == distribution for name in ast.walk(node))
        )

    everywhere = _names(_own(module), asks)
    for scope in (module, *(node for node in ast.walk(module) if isinstance(node, FUNCTION))):
        names = everywhere | _names(_own(scope), asks)
        for node in _own(scope):
            if isinstance(node, ast.Compare) and isinstance(node.ops[-1], ast.In | ast.NotIn):
                right = node.comparators[-1]
                if any(asks(part) or (isinstance(part, ast.Name) and part.id in names) for part in ast.walk(right)):
                    yield right


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module or function without those of functions in it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, FUNCTION):
            yield from _own(child)


def _names(nodes: Iterable[ast.AST], asks: Callable[[ast.AST], bool]) -> set[str]:
    """The variables that hold the answer."""
    return {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value and asks(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


PATCH = Patch(name="platform", apply=apply)
