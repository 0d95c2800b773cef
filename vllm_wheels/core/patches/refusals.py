"""Has vLLM refuse in one sentence what it cannot do for want of an operator that the wheel lacks.

Upstream asks before most of its operators whether the CPU has what they need. Some places do not: 4-bit weights
without AVX-512 (upstream's issue 55613), DeepSeek-V4 without AMX, and Mamba 1 on any CPU. Others end in lists of
kernels of all processors, or in no kernel at all; there the sentence comes before upstream's own end.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from vllm_wheels.core.formats.op_schemas import in_source
from vllm_wheels.core.patches.compiled import BINDINGS
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree

CALL = "_cpu_guard.refuse"
IMPORT = "from vllm import _cpu_guard"
INT4 = "4-bit weights (AWQ, GPTQ)"
DEEPSEEK = "DeepSeek-V4"
INT4_KERNELS = "vllm/model_executor/kernels/linear/mixed_precision"
DEEPSEEK_MODEL = "vllm/models/deepseek_v4/cpu/model.py"
LINEAR_KERNELS = "vllm/model_executor/kernels/linear/__init__.py"
MOE_KERNELS = "vllm/model_executor/layers/fused_moe/oracle"
HYPER_CONNECTIONS = "vllm/model_executor/kernels/mhc/cpu.py"
IS_DEEPSEEK = 'getattr(getattr(vllm_config.model_config, "hf_config", None), "model_type", None) == "deepseek_v4"'


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A place that is never passed without an operator, or the end of a search that found nothing.

    Attributes:
        path: file; a release that has no such file has no such feature.
        function: name of the function that refuses, of a method with its class.
        operator: what is needed; empty where no release has such a thing for CPUs.
        what: the feature, for people.
        condition: expression in the function, under which it refuses; empty for always.
        kernel: name in the file of a release that has the feature; empty where all have it that have the operator.
        last: whether it refuses before the last statement of the function, and not first of all.
    """

    path: str
    function: str
    operator: str
    what: str
    condition: str = ""
    kernel: str = ""
    last: bool = False

    def lines(self, indent: str) -> str:
        """The statements that refuse."""
        call = f'{CALL}("{self.operator}", "{self.what}")'
        asked = f"if {self.condition}:\n{indent}    {call}" if self.condition else call
        return f"{indent}{IMPORT}\n\n{indent}{asked}\n\n"


REFUSALS = (
    *(
        # zentorch's kernel leaves layers that it does not take to the other one.
        Refusal(path=f"{INT4_KERNELS}/{file}", function="can_implement", operator="cpu_gemm_wna16", what=INT4)
        for file in ("cpu.py", "zentorch.py")
    ),
    *(
        Refusal(
            path=f"{MOE_KERNELS}/{file}.py",
            function=function,
            operator=operator,
            what=f"mixtures of experts with {what} weights",
            kernel=kernel,
            last=True,
        )
        for file, function, kernel, operator, what in (
            ("int_wna16", "select_wna16_moe_backend", "CPUExpertsInt4", "fused_experts_cpu", "4-bit"),
            ("int8", "select_int8_moe_backend", "CPUExpertsInt8", "fused_experts_cpu", "8-bit"),
            ("mxfp4", "select_mxfp4_moe_backend", "CPUExpertsMxfp4", "convert_scale_packed", "MXFP4"),
        )
    ),
    *(
        Refusal(
            path=f"{MOE_KERNELS}/fp8.py",
            function="select_fp8_moe_backend",
            operator=operator,
            what=f"mixtures of experts with FP8 weights {what}",
            condition=f"weight_key.scale.group_shape {compared} (128, 128)",
            kernel="CPUExpertsFp8",
            last=True,
        )
        for operator, compared, what in (
            ("fp8_scaled_mm_cpu", "==", "and a scale per block"),
            ("", "!=", "unless they have a scale per block of 128 by 128"),
        )
    ),
    Refusal(
        path=LINEAR_KERNELS,
        function="choose_scaled_mm_linear_kernel",
        operator="fp8_scaled_mm_cpu",
        what="FP8 weights with a scale per block",
        condition="possible_kernels is _POSSIBLE_FP8_BLOCK_KERNELS",
        kernel="CPUFp8BlockScaledMMKernel",
        last=True,
    ),
    Refusal(
        path="vllm/model_executor/layers/mamba/mamba_mixer.py",
        function="__init__",
        operator="selective_scan_fwd",
        what="the selective scan of Mamba 1",
        kernel="selective_scan_fn",
    ),
    Refusal(
        path="vllm/platforms/cpu.py",
        function="check_and_update_config",
        operator="hc_pre_fused_cpu",
        what=DEEPSEEK,
        condition=IS_DEEPSEEK,
    ),
    # Not where it is imported: upstream imports it whatever the model is.
    Refusal(
        path=DEEPSEEK_MODEL,
        function="DeepseekV4Model.__init__",
        operator="flash_mla_with_kvcache_cpu",
        what=DEEPSEEK,
    ),
    *(
        Refusal(path=HYPER_CONNECTIONS, function=function, operator=operator, what=f"hyper-connections ({DEEPSEEK})")
        for function, operator in (
            ("mhc_pre_cpu", "hc_pre_fused_cpu"),
            ("mhc_post_cpu", "hc_post_fused_cpu"),
            ("hc_head_fused_cpu", "hc_head_fused_cpu"),
        )
    ),
    Refusal(
        path="vllm/model_executor/layers/sparse_attn_indexer.py",
        function="forward_cpu",
        operator="fp8_paged_mqa_logits_cpu",
        what=f"the sparse attention of {DEEPSEEK}",
    ),
    Refusal(
        path="vllm/model_executor/layers/fused_moe/router/cpu_router.py",
        function="_sqrtsoftplus_bias_topk",
        operator="biased_topk_cpu",
        what=f"the routing of {DEEPSEEK}",
    ),
)


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants: what they lack is in the guard
    """Adds each refusal whose feature the release has."""
    operators = in_source(tree.text(BINDINGS)) if tree.has(BINDINGS) else {}
    for refusal in REFUSALS:
        if not tree.has(refusal.path):
            continue
        if refusal.kernel in tree.text(refusal.path) if refusal.kernel else refusal.operator in operators:
            _refuse(tree, refusal)


def _refuse(tree: Tree, refusal: Refusal) -> None:
    scope, _, name = refusal.function.rpartition(".")
    nodes = list(ast.walk(tree.module(refusal.path)))
    if scope:
        nodes = [
            inner for node in nodes if isinstance(node, ast.ClassDef) and node.name == scope for inner in node.body
        ]
    found = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(found) != 1:
        raise tree.missing(refusal.path, f"def {refusal.function}", found=len(found))
    body = found[0].body
    after = body[-1] if refusal.last else body[1 if ast.get_docstring(found[0]) is not None else 0]
    lines = tree.lines(refusal.path)
    lines.insert(after.lineno - 1, refusal.lines(" " * after.col_offset))
    tree.write(refusal.path, "".join(lines))


PATCH = Patch(name="refusals", apply=apply)
