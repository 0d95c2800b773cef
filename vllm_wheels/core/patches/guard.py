"""Adds the CPU guard: it refuses CPUs below the variant's floor and hides features above the variant's level.

The floor is checked before anything else of vLLM is imported. The cap needs torch, which vLLM imports in
``vllm/env_override.py`` after setting variables that torch reads; so it is applied right behind that.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pprint import pformat

from vllm_wheels.core.patches.cpu_guard import Wheel
from vllm_wheels.core.patches.guard_files import GUARD, INIT
from vllm_wheels.core.patches.operators import elsewhere
from vllm_wheels.core.patches.package_init import imports
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.variants import known_questions, variants

TEMPLATE = "cpu_guard.py"
TABLE = "WHEEL: Wheel = {}\n"
OPERATORS = "cpu_has_"
OPERATOR_QUESTION = re.compile(r"\btorch\.ops\._C\.(cpu_has_\w+)\(\)")
QUESTION = re.compile(r"\btorch\.cpu\.(_is_\w+_supported)\b|\btorch\.ops\._C\.(cpu_has_\w+)\(\)")
LEFT_OVER = re.compile(r"\b_C\.cpu_has_\w+")
OWN_IMPORT = re.compile(r"^(?:from|import) +vllm\b", re.MULTILINE)
TORCH_IMPORT = "vllm.env_override"


def apply(tree: Tree, wanted: Wanted) -> None:
    """Adds the module and calls it from ``vllm/__init__.py``."""
    source = files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    table = pformat(data(tree, wanted), sort_dicts=False, width=100)
    tree.write(GUARD, source.replace(TABLE, f"WHEEL: Wheel = {table}\n"))
    _ask_guard(tree)
    lines = tree.lines(INIT)
    first, torch = _places(tree)
    # From the end, so that the first number stays true.
    lines.insert(torch, "\n_cpu_guard.cap_host()\n")
    lines.insert(first, "from . import _cpu_guard  # isort:skip\n")
    tree.write(INIT, "".join(lines))


def _ask_guard(tree: Tree) -> None:
    """Has the guard answer in place of operators that read the CPU's features themselves, past ``torch.cpu``."""
    for path in tree.code_with("torch.cpu._is_", OPERATORS):
        text = tree.text(path)
        questions = {found[found.lastindex or 0] for found in QUESTION.finditer(text)}
        for question in sorted(questions - {*known_questions()}):
            tree.notice(f"{path} asks about the CPU what no variant knows, {question}: it is answered with no")
        if OPERATORS in text and (asked := OPERATOR_QUESTION.sub(r'_cpu_guard.answer("\1")', text)) != text:
            if (importing := _importing(asked)) == asked:
                raise tree.missing(path, "import vllm... before what asks about the CPU")
            tree.write(path, importing)
        if left := LEFT_OVER.search(tree.text(path)):
            raise tree.misfit(path, why=f"{left[0]!r} asks about the CPU in a way that the patch does not know")


def _importing(text: str) -> str:
    """The text with an import of the guard before its first import of vLLM's own."""
    return OWN_IMPORT.sub(r"from vllm import _cpu_guard\n\g<0>", text, count=1)


def _places(tree: Tree) -> tuple[int, int]:
    """Line numbers at which to insert the import of the guard and the cap."""
    effective = imports(tree)
    torch = [node for node in effective if any(name.name == TORCH_IMPORT for name in node.names)]
    if len(torch) != 1 or torch[0].end_lineno is None:
        raise tree.missing(INIT, f"import {TORCH_IMPORT}", found=len(torch))
    return effective[0].lineno - 1, torch[0].end_lineno


def data(tree: Tree, wanted: Wanted) -> Wheel:
    """What the module knows about its wheel and the other variants, lowest first."""
    return {
        "variant": wanted.variant.name,
        "distribution": wanted.distribution,
        "floor": wanted.variant.floor,
        "ceiling": wanted.code.ceiling,
        "known": known_questions(),
        "elsewhere": elsewhere(tree.root, wanted),
        "variants": [
            {"distribution": wanted.distributions[name], "floor": other.floor} for name, other in variants().items()
        ],
    }


PATCH = Patch(name="guard", apply=apply)
