"""Compiles upstream's int4 and int8 kernels of ``csrc/cpu/sgl-kernels`` for variants with VNNI and without AMX.

Upstream compiles them for AMX alone, though they multiply by VNNI and need BF16 for conversions only. Each added source
defines a mark in its first line, for which ``gemm.h`` and ``vec.h`` read our header in place of their own guard. All
other sources see what they saw. docs/vnni.md explains it to vLLM's maintainers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

from vllm_wheels.core.patches import vnni_bindings, vnni_python
from vllm_wheels.core.patches.compiled import AMX_LIST, KERNELS, WIDE_LIST, convolves, vnni_sources
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE

HEADER = "vllm_wheels_vnni.h"
MARK = "VLLM_WHEELS_VNNI"
MARKED = f"#define {MARK}  // without AMX, see {HEADER}\n"

GUARD = re.compile(
    r"^#(if defined\(__AVX512F__\) && defined\(__AVX512BF16__\) && defined\(__AMX_BF16__\)\n)"
    r"(?=#define CPU_CAPABILITY_AVX512\n#endif\n)",
    re.MULTILINE,
)
FIRST_INCLUDE = re.compile(r"^#include ", re.MULTILINE)
BRGEMM = re.compile(
    r"^(constexpr bool brgemm_supported\(\) \{\n#if defined\(CPU_CAPABILITY_AVX512\))(?=\n  return true;\n)",
    re.MULTILINE,
)
ROWS_OVER_4 = re.compile(
    r"^( *)default:\n +TORCH_CHECK\(false, \"tinygemm_kernel: unexpected M for AVX path!\"\);\n", re.MULTILINE
)
ANY_ROWS = """\
// vllm-wheels: upstream multiplies more than 4 rows by brgemm. The sums of 8 rows still fit into the registers.
case 5:
  CALL_DEQUANT_GEMM_ACCUM_SMALL_M(5);
  break;
case 6:
  CALL_DEQUANT_GEMM_ACCUM_SMALL_M(6);
  break;
case 7:
  CALL_DEQUANT_GEMM_ACCUM_SMALL_M(7);
  break;
case 8:
  CALL_DEQUANT_GEMM_ACCUM_SMALL_M(8);
  break;
default:
  static_assert(!sym_quant_act);
  for (int64_t m = 0; m < M; m += 8) {
    _dequant_gemm_accum<N, ldb, sym_quant_act>(
        C + m * ldc, A + m * lda, scales_a + m, qzeros_a + m, B, scales_b, qzeros_b, compensation, dqB,
        std::min<int64_t>(M - m, 8), K, lda, ldc, use_brgemm);
  }
"""
BRGEMM_CALL = re.compile(r"\bat::native::cpublas::(brgemm(?:_release)?\()")
BRGEMM_QUESTION = re.compile(r"\bcan_use_brgemm<int8_t>\(")
BRGEMM_LEFT = re.compile(r"(?<!vllm_wheels::)\b(?:can_use_)?brgemm(?:_release)?(?:<\w+>)?\(")
HALF = re.compile(
    r"^(?=#if defined\(CPU_CAPABILITY_AVX512\)\ntemplate <>\ninline void\s+quantize_row_int8<at::BFloat16>\()",
    re.MULTILINE,
)
QUANTIZE_HALF = f"""\
#if defined({MARK})
template <>
inline void quantize_row_int8<at::Half>(
    uint8_t* __restrict__ Aq, float& As, const at::Half* __restrict__ A, int64_t K, float eps) {{
  vllm_wheels::quantize_row(Aq, As, A, K, eps);
}}
#endif

"""
FOR_BFLOAT16 = re.compile(
    r"^template <(?:bool has_bias, )?(?:int \w+(?:, )?)+>\n"
    r"struct (?P<name>scale_C|tinygemm_kernel_nn|tinygemm_kernel_vnni2?)<at::BFloat16,(?s:.*?)^};\n",
    re.MULTILINE,
)
"""Kernels of int8 that upstream has for bfloat16 alone; they differ from those for float16 by the conversion."""

STARTS_FOR_BFLOAT16 = re.compile(r"^struct \w+<at::BFloat16,", re.MULTILINE)
TO_BFLOAT16 = "(__m512i)(_mm512_cvtne2ps_pbh("
TO_HALF = "(__m512i)(vllm_wheels::to_halves("
AMX_ONLY_CALL = re.compile(r"\b(?:fused_experts|shared_expert)_fp\w*_kernel_impl(?:<[^;()]*>)?\(")


def apply(tree: Tree, wanted: Wanted) -> None:
    """Adds the kernels, registers their ops, and has Python call them.

    Raises:
        PatchError: the release holds the kernels, and one of the places to change is not as the patch knows it.
    """
    sources = () if wanted.whole else vnni_sources(tree.root, wanted.code)
    if not sources:
        return
    _headers(tree)
    _kernels(tree)
    for path in sources:
        if not FIRST_INCLUDE.search(tree.text(path)):
            raise tree.missing(path, "#include")
        tree.write(path, FIRST_INCLUDE.sub(f"{MARKED}\\g<0>", tree.text(path), count=1))
    vnni_bindings.register(tree, convolves=convolves(tree.root, wanted.code))
    _list(tree, sources)
    vnni_python.change(tree)


def _headers(tree: Tree) -> None:
    """Has the two headers that kernels include ask for the mark."""
    tree.write(f"{KERNELS}/{HEADER}", files(__package__).joinpath(HEADER).read_text("utf-8"))
    for name in ("gemm.h", "vec.h"):
        _substitute(tree, f"{KERNELS}/{name}", GUARD, f'#if defined({MARK})\n#include "{HEADER}"\n#el\\g<1>')
    # brgemm is torch's, through oneDNN: what it can do depends on the processor, and what it cannot ends the process.
    _substitute(tree, f"{KERNELS}/gemm.h", BRGEMM, f"\\g<1> && !defined({MARK})")
    _substitute(tree, f"{KERNELS}/vec.h", HALF, QUANTIZE_HALF)


def _kernels(tree: Tree) -> None:
    """Gives the kernels that call brgemm another way, and those for bfloat16 alone a twin for float16."""
    any_rows = "".join(f"\\g<1>{line}\n" for line in ANY_ROWS.splitlines())
    _substitute(tree, f"{KERNELS}/gemm_int4.cpp", ROWS_OVER_4, any_rows)
    for name in ("gemm_int8.cpp", "moe_int8.cpp"):
        _own_brgemm(tree, f"{KERNELS}/{name}")
        _for_half(tree, f"{KERNELS}/{name}")
    moe = f"{KERNELS}/moe.cpp"
    text, count = AMX_ONLY_CALL.subn("vllm_wheels::needs_amx(", tree.text(moe))
    if not count:
        raise tree.missing(moe, AMX_ONLY_CALL.pattern)
    tree.write(moe, text)


def _substitute(tree: Tree, path: str, pattern: re.Pattern[str], new: str | Callable[[re.Match[str]], str]) -> None:
    """Replaces the one place of a pattern."""
    made, found = pattern.subn(new, tree.text(path))
    if found != 1:
        raise tree.missing(path, pattern.pattern, found=found)
    tree.write(path, made)


def _own_brgemm(tree: Tree, path: str) -> None:
    """Has a source for 8 bits call our brgemm; upstream's is not asked for there any more."""
    text = BRGEMM_CALL.sub(r"vllm_wheels::\g<1>", tree.text(path))
    text = BRGEMM_QUESTION.sub("vllm_wheels::can_use_brgemm(", text)
    if text == tree.text(path) or BRGEMM_LEFT.search(text):
        raise tree.misfit(path, why=f"{path} calls brgemm in a way that the patch does not know")
    tree.write(path, text)


def _for_half(tree: Tree, path: str) -> None:
    """Repeats for float16 the kernels that are for bfloat16 alone; from 0.33.0 on some are for both."""
    text = tree.text(path)
    expected = len(STARTS_FOR_BFLOAT16.findall(text))
    made, count = FOR_BFLOAT16.subn(
        lambda match: f"{match[0]}\n// vllm-wheels: the same for float16.\n{_half(match[0])}", text
    )
    if count != expected or made.count(TO_HALF) != text.count(TO_BFLOAT16):
        raise tree.misfit(path, why=f"{path} has {expected} kernels for bfloat16 alone, the patch knows {count}")
    tree.write(path, made)


def _half(kernel: str) -> str:
    return kernel.replace("at::BFloat16", "at::Half").replace(TO_BFLOAT16, TO_HALF)


def _list(tree: Tree, sources: tuple[str, ...]) -> None:
    """Adds the sources to the list for AVX-512, which the wheel's one extension is made of."""
    text = tree.text(CMAKE)
    found = list(re.finditer(rf"^[ \t]*set\({WIDE_LIST}\b[^()]*(?=\))", text, re.MULTILINE))
    if len(found) != 1 or not re.search(rf"^[ \t]*set\({AMX_LIST}\b", text, re.MULTILINE):
        raise tree.missing(CMAKE, f"set({WIDE_LIST} ...) beside set({AMX_LIST} ...)", found=len(found))
    if listed := [path for path in sources if f'"{path}"' in found[0][0]]:
        raise tree.misfit(CMAKE, why=f"{CMAKE} has {', '.join(listed)} in {WIDE_LIST} already")
    added = "".join(f'\n        "{path}"' for path in sources)
    tree.write(CMAKE, text[: found[0].end()].rstrip() + added + text[found[0].end() :])


PATCH = Patch(name="vnni", apply=apply, families=("unified",))
