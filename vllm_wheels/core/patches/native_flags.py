"""Refuses a release that compiles with instruction sets, or for CPUs, of which no variant says what they need.

All that the CPU build reads is looked through, in both families: a flag on every file of the extension, on one file,
on the whole directory. Flags that choose no instructions and that the table does not know are passed on with a notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.formats.cmake import CMakeCommand, commands, unquoted
from vllm_wheels.core.patches.known import known
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE
from vllm_wheels.core.variants import variants

FILES = (CMAKE, "CMakeLists.txt", "cmake/utils.cmake")
COMMON = "CXX_COMPILE_FLAGS"
"""The list of flags that all extensions for x86-64 share."""

MACHINE = re.compile(r"(?<![\w-])-m(?!llvm)[a-z][\w.+=-]*")
NOT_COMPILING = frozenset({"message", "check_cxx_compiler_flag", "if", "elseif"})
"""Commands whose arguments are no flags of a compile: probes, conditions and messages."""

FLAG_LIST = re.compile(rf"{COMMON}\w*")
REFERENCE = re.compile(r"\$\{(\w+)\}")
GROWING = {"set": 1, "list": 2, "string": 2}
"""Commands that put words into a variable, and where these begin."""


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Looks through all flags.

    Raises:
        PatchError: a flag chooses instructions that no variant knows, or does so past the lists; names file and flag.
    """
    for path in FILES:
        if tree.has(path):
            for flag, is_listed in machine_flags(tree.text(path)):
                if not (
                    flag in known().flags.beside or (is_listed and flag in {*of_variants(), *known().flags.common})
                ):
                    raise unknown_flag(tree, path, flag if is_listed else f"{flag} outside of the lists {COMMON}...")
    text = tree.text(CMAKE)
    flags = flags_of(text, [f"${{{COMMON}}}"])
    for flag in known().flags.always:
        if flag not in flags:
            raise tree.missing(CMAKE, f'list(APPEND {COMMON} "{flag}")')
    for flag in flags:
        if flag not in known().flags.common and not MACHINE.fullmatch(flag):
            tree.notice(f"{flag} in {CMAKE}, which the patches do not know, is passed on to the compiler")


def unknown_flag(tree: Tree, path: str, flag: str) -> PatchError:
    """The error of a flag that chooses instructions that no variant knows."""
    return tree.misfit(path, why=f"{path} compiles with {flag}, and no variant says what that needs of a CPU")


def of_variants() -> frozenset[str]:
    """The flags that some variant compiles with, and those that none does by choice."""
    own = (flag for variant in variants().values() for flag in variant.flags)
    return frozenset({*own, *known().flags.left_out})


def machine_flags(text: str) -> dict[tuple[str, bool], None]:
    """Flags such as ``-mavx2`` that an x86-64 Linux host may compile with, and whether a list of flags gets them."""
    found: dict[tuple[str, bool], None] = {}
    for command in commands(text):
        if command.reached is False or command.name in NOT_COMPILING:
            continue
        first = GROWING.get(command.name, 0)
        is_listed = first > 0 and any(map(FLAG_LIST.fullmatch, command.arguments[first - 1 : first]))
        found |= dict.fromkeys((flag, is_listed) for word in command.arguments for flag in MACHINE.findall(word))
    return found


def flags_of(text: str, words: Sequence[str]) -> tuple[str, ...]:
    """Words with references to variables replaced by all that may be in them on an x86-64 Linux host, each once."""
    found = [command for command in commands(text) if command.reached is not False]
    return tuple(dict.fromkeys(_expanded(found, words, ())))


def _expanded(found: Sequence[CMakeCommand], words: Sequence[str], seen: tuple[str, ...]) -> Iterator[str]:
    for piece in (piece for word in words for piece in unquoted(word).split()):
        reference = REFERENCE.fullmatch(piece)
        if reference is None:
            yield piece
        elif reference[1] not in seen:
            for command in found:
                yield from _expanded(found, _added(command, reference[1]), (*seen, reference[1]))


def _added(command: CMakeCommand, name: str) -> tuple[str, ...]:
    first = GROWING.get(command.name)
    if first is None or command.arguments[first - 1 : first] != (name,):
        return ()
    return command.arguments[first:]


PATCH = Patch(name="flags", apply=apply)
