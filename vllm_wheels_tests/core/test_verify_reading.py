"""What a wheel's Python code can reach on a CPU, read without running it."""

# ruff: noqa: E501 - a shape of code on one line each
from __future__ import annotations

import pytest

from vllm_wheels.core.formats.op_schemas import Operator
from vllm_wheels.core.verify.reading.reach import Reach
from vllm_wheels.core.verify.reading.sources import Package
from vllm_wheels.core.verify.reading.values import Host

CALL = "torch.ops._C.packed(1)"
NO_AMX = {"_is_amx_tile_supported": False}
SHAPES = {
    "asked in the condition": f"if torch.cpu._is_amx_tile_supported() and later:\n    {CALL}\n",
    "asked in the expression": f"found = torch.cpu._is_amx_tile_supported() and {CALL}\n",
    "asked the other way round": f"if not torch.cpu._is_amx_tile_supported():\n    pass\nelse:\n    {CALL}\n",
    "asked before, in a function": (
        f"def pack(x):\n    if not torch.cpu._is_amx_tile_supported() or x:\n        return 1\n    return {CALL}\npack(2)\n"
    ),
    "asked where it is called": (
        f"def pack():\n    return {CALL}\ndef load(x):\n    if fits(x):\n        pack()\n"
        "def fits(x):\n    if not torch.cpu._is_amx_tile_supported():\n        return False\n    return x > 3\nload(1)\n"
    ),
    "answer kept in a variable": (
        f"def load(x):\n    amx = torch.cpu._is_amx_tile_supported()\n    use = amx and x\n    if use:\n        {CALL}\nload(1)\n"
    ),
    "answer kept in an attribute": (
        "class Layer:\n    def load(self, layer):\n        layer.packs = x and torch.cpu._is_amx_tile_supported()\n"
        f"    def apply(self, layer):\n        if layer.packs:\n            {CALL}\nLayer().apply(1)\n"
    ),
    "asked whether the operator is there": f'if hasattr(torch.ops._C, "packed"):\n    {CALL}\n',
    "asked for its name as an argument": (
        f'def has(op):\n    return hasattr(torch.ops._C, op)\nif has("packed"):\n    {CALL}\n'
    ),
    "class that says it is not supported": (
        "class Kernel:\n    @classmethod\n    def is_supported(cls):\n        if not torch.cpu._is_amx_tile_supported():\n"
        f'            return False, "needs AMX"\n        return True, None\n    def apply(self):\n        {CALL}\nKernel\n'
    ),
    "class chosen by a member that stands for it": (
        "class Kernel:\n    @staticmethod\n    def _supports_current_device():\n"
        "        return current_platform.is_cpu() and torch.cpu._is_amx_tile_supported()\n"
        "def classes(kind):\n    if kind == Kind.CPU:\n        return [Kernel]\n"
        f"def load(kind):\n    if kind == Kind.CPU:\n        {CALL}\nclasses(1)\nload(2)\n"
    ),
    "member of an enumeration that nothing uses": (
        f'class Kinds:\n    AMX = "vllm.code.Backend"\nclass Backend:\n    def run(self):\n        {CALL}\nKinds.CPU\n'
    ),
    "other platform": f"if current_platform.is_cuda():\n    {CALL}\n",
    "other processor": f"if current_platform.get_cpu_architecture() == CpuArchEnum.ARM:\n    {CALL}\n",
    "function that nobody calls": f"def pack():\n    return {CALL}\n",
    "refused by the guard": (
        f'def pack(x):\n    from vllm import _cpu_guard\n    _cpu_guard.refuse("packed", "packing")\n    return {CALL}\npack(2)\n'
    ),
    "asked past torch": f'if _cpu_guard.answer("cpu_has_amx_fp8"):\n    {CALL}\n',
    "same name in another module": f"from vllm.other import pack\ndef packs():\n    def pack():\n        {CALL}\npack()\n",
}


def chain(root, code, answers, operators=(), **files):
    """What leads to the call in ``vllm/code.py``."""
    for name, text in {"code": code, "other": "def pack():\n    pass\n", **files}.items():
        path = root / "vllm" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import torch\n{text}")
    package = Package(root)
    reach = Reach(package, Host(answers, {name: Operator(name=name, parameters=1) for name in operators}))
    found = package.uses("packed")
    calls = [each for each in found if hasattr(each[1], "attr")]
    return next((way for source, node in calls if (way := reach.chain(source, node))), None)


@pytest.mark.parametrize("shape", SHAPES)
def test_code_behind_a_question_is_not_reached_where_the_answer_is_no(tmp_path, shape):
    """Upstream asks in many ways, and each of them is understood."""
    answers = {**NO_AMX, "cpu_has_amx_fp8": False}
    assert chain(tmp_path, SHAPES[shape], answers) is None


@pytest.mark.parametrize("shape", [name for name in SHAPES if name.startswith(("asked", "answer", "class"))])
def test_code_behind_a_question_is_reached_where_the_answer_is_open(tmp_path, shape):
    """What the CPU itself may answer with yes is not taken for refused."""
    operators = ["packed"] if "operator" in shape or "argument" in shape else []
    assert chain(tmp_path, SHAPES[shape], {}, operators) is not None


def test_way_names_each_place_up_to_a_module(tmp_path):
    """Who reads a conviction sees from where the operator is called."""
    code = f"class Kernel:\n    def apply(self):\n        return pack()\ndef pack():\n    return {CALL}\nKernel\n"
    assert chain(tmp_path, code, {}) == (
        "vllm/code.py:6 (pack)",
        "vllm/code.py:4 (Kernel.apply)",
        "vllm/code.py:7",
    )


def test_code_of_another_platforms_folder_does_not_count(tmp_path):
    """Upstream keeps code that only GPUs run in folders of their names."""
    assert chain(tmp_path, "", {}, **{"models/nvidia/code": f"{CALL}\n"}) is None


def test_package_that_refuses_to_be_imported_reaches_nothing(tmp_path):
    """Where a model refuses on import, none of its modules runs."""
    refusing = 'from vllm import _cpu_guard\n_cpu_guard.refuse("packed", "the model")\n'
    assert chain(tmp_path, "", {}, **{"model/__init__": refusing, "model/code": f"{CALL}\n"}) is None
    assert chain(tmp_path / "2", "", {}, ["packed"], **{"model/__init__": refusing, "model/code": f"{CALL}\n"})
