"""Has vLLM quantize to FP8 by PyTorch on CPUs, in place of calling upstream's placeholders.

``csrc/cpu/torch_bindings.cpp`` registers ``static_scaled_fp8_quant() -> ()`` and its kin, which take no arguments, only
so that names in patterns of the compiler are there. Loading an FP8 checkpoint calls them with four.
"""

from __future__ import annotations

import ast
from importlib.resources import files

from vllm_wheels.core.formats.op_schemas import in_source
from vllm_wheels.core.patches.compiled import BINDINGS
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

TEMPLATE = "fp8_quantization.py"
MODULE = "vllm/_fp8_quantization.py"
WRAPPERS = "vllm/_custom_ops.py"
FUNCTION = "scaled_fp8_quant"
STATIC, TENSOR, TOKEN = "static_scaled_fp8_quant", "dynamic_scaled_fp8_quant", "dynamic_per_token_scaled_fp8_quant"
CASES = {STATIC: "scale is not None", TOKEN: "use_per_token_if_dynamic"}
"""When the function calls an operator; the third one is left."""

BODY = """\
{indent}if current_platform.is_cpu(){but}:
{indent}    # What the extension registers for this takes no arguments.
{indent}    from vllm import _fp8_quantization

{indent}    return _fp8_quantization.quantized({arguments})

"""


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Adds the module and calls it, in releases with a placeholder, in place of the placeholders only."""
    operators = in_source(tree.text(BINDINGS)) if tree.has(BINDINGS) else {}
    if not any(name in operators and not operators[name].parameters for name in (STATIC, TENSOR, TOKEN)):
        return
    real = [case for name, case in CASES.items() if name in operators and operators[name].parameters]
    text = tree.text(WRAPPERS)
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION]
    if len(functions) != 1:
        raise tree.missing(WRAPPERS, f"def {FUNCTION}", found=len(functions))
    function = functions[0]
    first = function.body[1 if ast.get_docstring(function) is not None else 0]
    arguments = ", ".join(f"{each.arg}={each.arg}" for each in function.args.args)
    lines = text.splitlines(keepends=True)
    but = "".join(f" and not ({case})" for case in real)
    lines.insert(first.lineno - 1, BODY.format(indent=" " * first.col_offset, arguments=arguments, but=but))
    tree.write(WRAPPERS, "".join(lines))
    tree.write(MODULE, files(__package__).joinpath(TEMPLATE).read_text("utf-8"))


PATCH = Patch(name="fp8", apply=apply)
