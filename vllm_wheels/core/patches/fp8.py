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
STATIC = "static_scaled_fp8_quant"
OPERATORS = (STATIC, "dynamic_scaled_fp8_quant", "dynamic_per_token_scaled_fp8_quant")
INSTEAD = """\
{indent}if current_platform.is_cpu():
{indent}    # What the extension registers by this name takes no arguments.
{indent}    from vllm import _fp8_quantization

{indent}    return _fp8_quantization.quantized({arguments})
"""


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Adds the module, and calls it before each call of a placeholder."""
    operators = in_source(tree.text(BINDINGS)) if tree.has(BINDINGS) else {}
    placeholders = {name for name in OPERATORS if name in operators and not operators[name].parameters}
    if not placeholders:
        return
    body = tree.module(WRAPPERS).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION]
    if len(functions) != 1:
        raise tree.missing(WRAPPERS, f"def {FUNCTION}", found=len(functions))
    lines = tree.lines(WRAPPERS)
    calls = {name: _call(functions[0], name) for name in placeholders}
    for name, call in sorted(calls.items(), key=lambda each: -each[1].lineno if each[1] else 0):
        if call is None:
            raise tree.missing(WRAPPERS, f"def {FUNCTION}(...): ... torch.ops._C.{name}(...)")
        # By now upstream has put an empty tensor in the place of a scale that is to be measured.
        given = [each.arg for each in functions[0].args.args if each.arg != "scale" or name == STATIC]
        arguments = ", ".join(f"{each}={each}" for each in given)
        lines.insert(call.lineno - 1, INSTEAD.format(indent=" " * call.col_offset, arguments=arguments))
    tree.write(WRAPPERS, "".join(lines))
    tree.write(MODULE, files(__package__).joinpath(TEMPLATE).read_text("utf-8"))


def _call(function: ast.FunctionDef, name: str) -> ast.Expr | None:
    """The statement that calls an operator."""
    statements = (
        node for node in ast.walk(function) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    return next((each for each in statements if ast.unparse(each.value).startswith(f"torch.ops._C.{name}(")), None)


PATCH = Patch(name="fp8", apply=apply)
