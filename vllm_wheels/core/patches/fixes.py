"""Backported fixes for defects of upstream's releases: what is broken, in which releases, and the edits."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Edit, Tree
from vllm_wheels.core.patches.upstream import Family

STAND_INS = "vllm/utils/cpu_triton_utils.py"
KERNELS = "vllm/v1/worker/block_table.py"

SLOT_MAPPING = (
    Edit(
        path=STAND_INS,
        old="""\
    query_start_loc: torch.Tensor,  # [num_reqs + 1], int32
    positions: torch.Tensor,  # [num_tokens], int64
    block_table: torch.Tensor,  # [max_num_reqs, max_num_blocks_per_req], int32
    block_table_stride: int,  # max_num_blocks_per_req
    block_size: int,
    slot_mapping: torch.Tensor,  # [max_num_tokens], int64
    KV_CACHE_BLOCK_SIZE: int | None = None,
    BLOCKS_PER_KV_BLOCK: int = 1,
""",
        new="""\
    query_start_loc_ptr: torch.Tensor,  # [num_reqs + 1], int32
    positions_ptr: torch.Tensor,  # [num_tokens], int64
    block_table_ptr: torch.Tensor,  # [max_num_reqs, max_num_blocks_per_req], int32
    block_table_stride: int,  # max_num_blocks_per_req
    slot_mapping_ptr: torch.Tensor,  # [max_num_tokens], int64
    KV_CACHE_BLOCK_SIZE: int,
""",
    ),
    Edit(
        path=STAND_INS,
        old="""\
    if BLOCKS_PER_KV_BLOCK != 1:
        assert block_size * BLOCKS_PER_KV_BLOCK == KV_CACHE_BLOCK_SIZE
    torch.ops._C.compute_slot_mapping_kernel_impl(
        query_start_loc,
        positions,
        block_table,
        slot_mapping,
        block_size,
    )
""",
        new="""\
    torch.ops._C.compute_slot_mapping_kernel_impl(
        query_start_loc_ptr,
        positions_ptr,
        block_table_ptr,
        slot_mapping_ptr,
        KV_CACHE_BLOCK_SIZE,
    )
""",
    ),
)

MLA_WITHOUT_BF16 = (
    Edit(
        path="csrc/cpu/mla_decode.cpp",
        old="#elif defined(__aarch64__)\ntemplate <>\nstruct KernelVecType<c10::BFloat16> {",
        new="#elif defined(__aarch64__) || defined(__x86_64__)\ntemplate <>\nstruct KernelVecType<c10::BFloat16> {",
    ),
)

CACHE_SIZE_OF_LATER_TORCH = (
    Edit(
        path="csrc/cpu/utils.hpp",
        old="#include <ATen/cpu/Utils.h>\n",
        new="#include <ATen/cpu/Utils.h>\n#include <torch/version.h>\n",
    ),
    Edit(
        path="csrc/cpu/utils.hpp",
        old="    const uint32_t l2_cache_size = at::cpu::L2_cache_size();\n",
        new="""\
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR > 10
    const uint32_t l2_cache_size =
        at::cpu::get_cpu_capabilities().at("l2_cache_size").toInt();
#else
    const uint32_t l2_cache_size = at::cpu::L2_cache_size();
#endif
""",
    ),
)


HEADS_IN_ROWS = (
    Edit(
        path="vllm/model_executor/layers/rotary_embedding/base.py",
        old="""\
    def forward_cpu(
        self,
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        from vllm import _custom_ops as ops
""",
        new="""\
    def forward_cpu(
        self,
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        from vllm import _custom_ops as ops

        if query.dim() > positions.dim() + 1:
            # The kernel counts heads in the last dimension alone.
            rows = (*positions.shape, -1)
            rotated, others = self.forward_cpu(
                positions, query.reshape(rows), key if key is None else key.reshape(rows)
            )
            return rotated.view(query.shape), None if others is None else others.view(key.shape)
""",
    ),
)


TILES = "csrc/cpu/cpu_attn_amx.hpp"
SCRATCH = "deq_tile_amx<kv_cache_t>(reinterpret_cast<const uint8_t*>(src), scratch);\n"
WRITTEN = """\
    // A tile is loaded by an instruction of which the compiler knows no more than the address: what was written there
    // must be in memory.
    __asm__ volatile("" ::"r"(scratch) : "memory");
"""


def keep_scratch(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Keeps what an fp8 KV cache was turned into for AMX, in releases that do so.

    ``_tile_loadd`` of g++ 14 clobbers no memory, so that -O3 leaves the writing out: amxbf16 of 0.32.0 answered
    something else with an fp8 KV cache, where the same source with -O2 did not (tried with emulated AMX).

    Raises:
        PatchError: it is written in a way that the patch does not know.
    """
    if tree.has(TILES) and "deq_tile_amx" in tree.text(TILES):
        tree.replace(Edit(path=TILES, old=SCRATCH, new=SCRATCH + WRITTEN))


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A defect and the edits that fix it.

    Attributes:
        same_parameters: a function and the kernel it stands in for, each as (path, name), which take the same
            parameters once the edits are applied.
    """

    name: str
    defect: str
    releases: SpecifierSet
    edits: tuple[Edit, ...]
    families: tuple[Family, ...]
    same_parameters: tuple[tuple[str, str], tuple[str, str]] | None = None

    def apply(self, tree: Tree, wanted: Wanted) -> None:  # noqa: ARG002 - the same for all variants
        """Applies the edits and compares the parameters."""
        for edit in self.edits:
            tree.replace(edit)
        if self.same_parameters:
            ours, kernels = (parameters(tree, *place) for place in self.same_parameters)
            if ours != kernels:
                (path, name), _ = self.same_parameters
                raise tree.misfit(path, why=f"{name} takes {', '.join(ours)}; its kernel {', '.join(kernels)}")

    def patch(self) -> Patch:
        """The fix as a patch."""
        return Patch(name=self.name, apply=self.apply, releases=self.releases, families=self.families)


def parameters(tree: Tree, path: str, name: str) -> tuple[str, ...]:
    """Names of a function's parameters in their order; a method's is written ``Class.method``.

    Raises:
        PatchError: the file has no such function.
    """
    found: ast.AST = tree.module(path)
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        inner = [node for node in ast.iter_child_nodes(found) if isinstance(node, kinds) and node.name == part]
        if not inner:
            raise tree.missing(path, f"def {name}")
        found = inner[0]
    assert isinstance(found, ast.FunctionDef)  # noqa: S101 - the table of fixes names functions
    return tuple(argument.arg for argument in found.args.args)


FIXES = (
    Fix(
        name="slot-mapping",
        defect="no token is generated without triton-cpu: a kernel's stand-in takes other parameters",
        # 0.31.0 takes the old kernel's parameters, and 0.33.0 the new one's.
        releases=SpecifierSet("==0.32.0"),
        families=("unified",),
        edits=SLOT_MAPPING,
        same_parameters=(
            (STAND_INS, "_compute_slot_mapping_kernel_impl"),
            (KERNELS, "ComputeSlotMappingKernel.kernel"),
        ),
    ),
    Fix(
        name="mla-without-bf16",
        defect="csrc/cpu/mla_decode.cpp has no BFloat16 vectors for x86-64 without AVX512_BF16, and does not compile",
        releases=SpecifierSet("==0.16.0"),
        families=("host-detected",),
        edits=MLA_WITHOUT_BF16,
    ),
    Fix(
        name="cache-size-of-later-torch",
        defect="does not compile with torch 2.11 or later, where torch.version sets that: the cache size has moved",
        releases=SpecifierSet(">=0.14,<0.20"),
        families=("host-detected", "unified"),
        edits=CACHE_SIZE_OF_LATER_TORCH,
    ),
    Fix(
        name="heads-in-rows",
        defect="models with MLA answer wrongly: of queries with heads as a dimension the rotary kernel turns one head",
        # Tried on 0.32.0; the text is the same in all of these.
        releases=SpecifierSet(">=0.22,<0.34"),
        families=("unified",),
        edits=HEADS_IN_ROWS,
    ),
)

PATCHES = (*(fix.patch() for fix in FIXES), Patch(name="fp8-scratch", apply=keep_scratch))
