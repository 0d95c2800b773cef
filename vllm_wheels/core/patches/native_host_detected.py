"""Host-detected family (0.8.5 to 0.16.0): refuses variants that the release has no code for, unsets its variables.

Which instruction sets are used follows from the variant's ``cpuinfo`` words alone (see ``native_cpuinfo``). Upstream's
environment variables could only add to them, so a stray one in the builder's environment must not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from vllm_wheels.core.errors import VariantNotInReleaseError
from vllm_wheels.core.formats.cmake import CMakeCommand, commands, unquoted
from vllm_wheels.core.patches.known import known
from vllm_wheels.core.patches.native_flags import MACHINE
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE

SWITCH = re.compile(r"\bENV\{(VLLM_CPU_(?:DISABLE_)?(?:AVX|AMX)\w*)\}")
COMPILER_ALONE = ("-mfma",)
"""Flags that need no code: the compiler contracts multiplications and additions by itself."""

FLAGS = "CXX_COMPILE_FLAGS"

ASKED = {
    "-mavx512bf16": "AVX512BF16",
    "-mavx512vnni": "AVX512VNNI",
    "-mavx512": "AVX512",
    "-mavx2": "AVX2",
    "-mamx": "AMX",
}
"""What a condition asks for under which upstream compiles with a flag, by how the flag begins; the first that fits."""


def apply(tree: Tree, wanted: Wanted) -> None:
    """Checks that the release compiles with the variant's flags; adds those that need no code of their own."""
    text = tree.text(CMAKE)
    _require_flags(tree, wanted, text)
    _require_conditions(tree, text)
    # Up to 0.9.0 a switch counts as on once it is defined, even as 0.
    off = "".join(f"unset(ENV{{{name}}})\n" for name in dict.fromkeys(SWITCH.findall(text)))
    if flags := [flag for flag in wanted.code.flags if flag in COMPILER_ALONE]:
        first = next((command for command in commands(text) if FLAGS in command.arguments), None)
        if first is None:
            raise tree.missing(CMAKE, f"list(APPEND {FLAGS}")
        added = " ".join(f'"{flag}"' for flag in flags)
        text = f"{text[: first.start]}list(APPEND {FLAGS} {added})\n    {text[first.start :]}"
    tree.write(CMAKE, off + text)


def _require_flags(tree: Tree, wanted: Wanted, text: str) -> None:
    known = {unquoted(argument) for command in commands(text) for argument in command.arguments}
    for flag in wanted.code.flags:
        if flag not in COMPILER_ALONE and flag not in known:
            why = f"{CMAKE} never compiles with {flag} (looked for it at '\"{flag}\"')"
            raise not_in_release(tree, wanted, why, remedy="build a lower variant, or a later release")


def _require_conditions(tree: Tree, text: str) -> None:
    """Makes sure that no flag is on whatever the CPU has: the variant's ``cpuinfo`` could not switch it off."""
    found = {command.start: command for command in commands(text)}
    for command in found.values():
        if command.reached is False or FLAGS not in command.arguments:
            continue
        conditions = " ".join(word for above in _above(command, found) for word in above.arguments)
        for flag in (flag for word in command.arguments for flag in MACHINE.findall(word)):
            asked = next((word for begin, word in ASKED.items() if flag.startswith(begin)), flag)
            if flag not in known().flags.common and asked not in conditions:
                why = f"it compiles with {flag} whatever the CPU has (looked for 'if ({asked}_FOUND')"
                raise tree.misfit(CMAKE, why=why)


def _above(command: CMakeCommand, found: Mapping[int, CMakeCommand]) -> Iterator[CMakeCommand]:
    """The conditions under which a command stands."""
    while command.branch is not None:
        command = found[command.branch]
        yield command


def not_in_release(tree: Tree, wanted: Wanted, why: str, *, remedy: str) -> VariantNotInReleaseError:
    """The error of a variant that a release has no code for."""
    what = f"vLLM {tree.release} cannot be built as {wanted.variant.name}"
    return VariantNotInReleaseError(what, why=why, remedy=remedy)


PATCH = Patch(name="host-detected", apply=apply, families=("host-detected",))
