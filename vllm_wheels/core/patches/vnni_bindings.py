"""Registers the ops of the VNNI kernels where there is VNNI; upstream's guards want BF16 besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vllm_wheels.core.patches.compiled import BINDINGS
from vllm_wheels.core.patches.tree import Tree

OPS = (
    "weight_packed_linear",
    "convert_weight_packed",
    "fused_experts_cpu",
    "int8_scaled_mm_with_quant",
    "convert_weight_packed_scale_zp",
    "int4_scaled_mm_cpu",
)
CONVOLUTION_OPS = ("causal_conv1d_weight_pack", "causal_conv1d_fwd_cpu", "causal_conv1d_update_cpu")
NEEDED_OPS = ("convert_weight_packed", "fused_experts_cpu", "int8_scaled_mm_with_quant")
"""What every release with the kernels registers."""

OURS = "defined(__AVX512F__) && defined(__AVX512VNNI__)"
DIRECTIVE = re.compile(r"^#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b((?:[^\n]*\\\n)*[^\n]*)\n", re.MULTILINE)
STATEMENT = re.compile(
    r"(?:^[ \t]*//[^\n]*\n)*^[ \t]*ops\.(?:def|impl)\(\s*\"(?P<op>\w+)(?s:.*?)\);[ \t]*\n", re.MULTILINE
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block from #if to #endif that has no other branch, by offsets in the text.

    Attributes:
        start: of its #if.
        body: where the lines inside begin.
        body_end: where its #endif begins.
        end: behind its #endif.
        condition: as written behind #if.
    """

    start: int
    body: int
    body_end: int
    end: int
    condition: str


def register(tree: Tree, *, convolves: bool) -> None:
    """Splits each block that wants BF16 and VNNI: our ops for VNNI alone, all others for AMX alone.

    Raises:
        PatchError: something else stands in such a block, or an op that is needed is in none.
    """
    ops = (*OPS, *CONVOLUTION_OPS) if convolves else OPS
    text, made, position, kept = tree.text(BINDINGS), "", 0, set[str]()
    for block in blocks(text):
        if block.start >= position and "__AVX512BF16__" in block.condition and "__AVX512VNNI__" in block.condition:
            statements = _statements(tree, text, block)
            kept |= {statement["op"] for statement in statements} & set(ops)
            made += text[position : block.start] + _split(block, statements, ops)
            position = block.end
    if missing := [name for name in (*NEEDED_OPS, *ops[len(OPS) :]) if name not in kept]:
        raise tree.missing(BINDINGS, f'#if ... __AVX512BF16__ ... __AVX512VNNI__ ... ops.def("{missing[0]}')
    tree.write(BINDINGS, made + text[position:])


def _statements(tree: Tree, text: str, block: Block) -> list[re.Match[str]]:
    found = list(STATEMENT.finditer(text, block.body, block.body_end))
    edges = [block.body, *(edge for each in found for edge in each.span()), block.body_end]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if left := text[start:end].strip():
            raise tree.misfit(BINDINGS, why=f"{left.splitlines()[0]!r} stands between the registrations of {BINDINGS}")
    return found


def _split(block: Block, statements: list[re.Match[str]], ops: tuple[str, ...]) -> str:
    condition = " ".join(block.condition.replace("\\\n", " ").split())
    ours = "".join(each[0] for each in statements if each["op"] in ops)
    others = "".join(each[0] for each in statements if each["op"] not in ops)
    made = f"#if ({OURS}) || ({condition})\n{ours}#endif\n" if ours else ""
    return made + (f"#if defined(__AMX_BF16__) && ({condition})\n{others}#endif\n" if others else "")


def blocks(text: str) -> list[Block]:
    """The blocks without a second branch, in the order of their starts."""
    return sorted(_blocks(text), key=lambda block: block.start)


def _blocks(text: str) -> Iterator[Block]:
    opened: list[tuple[re.Match[str], bool]] = []
    for found in DIRECTIVE.finditer(text):
        if found[1] in ("if", "ifdef", "ifndef"):
            opened.append((found, True))
        elif found[1] in ("elif", "else"):
            opened[-1] = (opened[-1][0], False)
        else:
            first, plain = opened.pop()
            if plain:
                yield Block(
                    start=first.start(),
                    body=first.end(),
                    body_end=found.start(),
                    end=found.end(),
                    condition=first[2].strip(),
                )
