"""Which files of a release a variant compiles, those included, and those that the patch "vnni" adds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vllm_wheels.core.formats.cmake import CMakeCommand, commands, unquoted
from vllm_wheels.core.patches.upstream import CMAKE
from vllm_wheels.core.variants import Variant, variants

KERNELS = "csrc/cpu/sgl-kernels"
WIDE_LIST, AMX_LIST = "VLLM_EXT_SRC_AVX512", "VLLM_EXT_SRC_SGL"
ANY_CPU = "VLLM_EXT_SRC"
"""The one list of the host-detected family."""

VNNI_SOURCES = ("gemm.cpp", "gemm_int8.cpp", "gemm_int4.cpp", "moe.cpp", "moe_int8.cpp", "moe_int4.cpp")
CONVOLUTION = "conv.cpp"
GATED_DELTA = "vllm/model_executor/layers/mamba/ops/cpu/gdn_attention.py"
BF16_QUESTION = "torch.cpu._is_avx512_bf16_supported()"

HOLDS_KERNELS = re.compile(r"\bconstexpr bool brgemm_supported\(\)")
"""In gemm.h from 0.23.0 on: its kernels can do without brgemm, which needs AMX."""

BINDINGS = "csrc/cpu/torch_bindings.cpp"
REGISTERS = re.compile(
    r"^[ \t]*#[ \t]*if\b(?:[^\n\\]|\\.)*__AVX512BF16__(?:[^\n\\]|\\.)*__AVX512VNNI__", re.MULTILINE | re.DOTALL
)
"""The condition under which upstream registers what its kernels for AMX hold."""

ADD_SOURCES = frozenset({"add_library", "target_sources"})
"""Commands whose sources are compiled beside those of the lists."""

REFERENCE = re.compile(r"\$\{(\w+)\}")
PATH = re.compile(r"(?:\$\{\w+\}/)?(csrc/.+)")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)
INCLUDE_FOLDERS = ("csrc", "csrc/cpu")


def compiled(root: Path, variant: Variant) -> Iterator[str]:
    """Texts of the sources that the variant compiles, and of the release's own files that they include."""
    todo = {*_listed(root, variant), *(root / path for path in vnni_sources(root, variant))}
    found = set[Path]()
    while todo:
        path = todo.pop().resolve()
        if path in found or not path.is_file():
            continue
        found.add(path)
        text = path.read_text("utf-8", errors="replace")
        yield text
        folders = (path.parent, *(root / folder for folder in INCLUDE_FOLDERS))
        todo |= {folder / name for name in INCLUDE.findall(text) for folder in folders}


def vnni_sources(root: Path, variant: Variant) -> tuple[str, ...]:
    """Kernels with VNNI instructions that upstream compiles for AMX alone, and the patch "vnni" for the variant.

    Nothing for a variant without VNNI, for one that has AMX, and where the release's kernels need AMX.
    """
    takes = "-mavx512vnni" in variant.flags and AMX_LIST not in variant.sources
    if not takes or not HOLDS_KERNELS.search(_text(root / KERNELS / "gemm.h")):
        return ()
    names = (*VNNI_SOURCES, CONVOLUTION) if convolves(root, variant) else VNNI_SOURCES
    return tuple(f"{KERNELS}/{name}" for name in names if (root / KERNELS / name).is_file())


def leaves_kernels_out(root: Path, variant: Variant) -> bool:
    """Whether the release registers kernels for BF16 with VNNI from a list that the variant does not compile.

    An extension that registers what it does not hold cannot be loaded.
    """
    apart = AMX_LIST in _text(root / CMAKE) and AMX_LIST not in variant.sources
    return apart and bool(REGISTERS.search(_text(root / BINDINGS))) and not vnni_sources(root, variant)


def convolves(root: Path, variant: Variant) -> bool:
    """Whether Python calls the convolutions of gated-delta models where there is BF16 without AMX (from 0.29.0 on)."""
    return "-mavx512bf16" in variant.flags and BF16_QUESTION in _text(root / GATED_DELTA)


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _listed(root: Path, variant: Variant) -> Iterator[Path]:
    """The files of the variant's lists, of lists and patterns that these name, and of targets beside the extension."""
    found = commands(_text(root / CMAKE))
    conditions = {command.start: command.arguments for command in found}
    taken = [
        command
        for command in found
        if command.reached is not False and _can(variant, conditions.get(command.branch or -1, ()))
    ]
    unified = any(command.arguments[:1] == (WIDE_LIST,) for command in taken)
    todo = [f"${{{name}}}" for name in (variant.sources if unified else (ANY_CPU,))]
    todo += [argument for command in taken if command.name in ADD_SOURCES for argument in command.arguments]
    seen = set[str]()
    while todo:
        argument = unquoted(todo.pop())
        if argument in seen:
            continue
        seen.add(argument)
        if reference := REFERENCE.fullmatch(argument):
            todo += [value for command in taken for value in _values(command, reference[1])]
        elif path := PATH.fullmatch(argument):
            yield from root.glob(path[1])


def _values(command: CMakeCommand, name: str) -> tuple[str, ...]:
    """What a command puts into a list."""
    if command.name == "set" and command.arguments[:1] == (name,):
        return command.arguments[1:]
    if command.name in ("list", "file") and command.arguments[1:2] == (name,):
        return command.arguments[2:]
    return ()


def _can(variant: Variant, condition: Iterable[str]) -> bool:
    """Whether the variant has the features that a condition such as ``ENABLE_AVX512BF16`` asks for."""
    known = {_plain(word) for each in variants().values() for word in each.cpuinfo}
    asked = {_plain(word.removeprefix("ENABLE_")) for word in condition if word.startswith("ENABLE_")}
    return asked & known <= {_plain(word) for word in variant.cpuinfo}


def _plain(word: str) -> str:
    return word.replace("_", "").lower()
