"""Host-detected family (0.8.5 to 0.16.0): refuses variants that the release has no code for, unsets its variables.

Which instruction sets are used follows from the variant's ``cpuinfo`` words alone (see ``native_cpuinfo``). Upstream's
environment variables could only add to them, so a stray one in the builder's environment must not count.
"""

from __future__ import annotations

import re

from vllm_wheels.core.errors import VariantNotInReleaseError
from vllm_wheels.core.formats.cmake import commands, unquoted
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE

SWITCH = re.compile(r"\bENV\{(VLLM_CPU_(?:DISABLE_)?(?:AVX|AMX)\w*)\}")
COMPILER_ALONE = ("-mfma",)
"""Flags that need no code: the compiler contracts multiplications and additions by itself."""

FLAGS = "CXX_COMPILE_FLAGS"


def apply(tree: Tree, wanted: Wanted) -> None:
    """Checks that the release compiles with the variant's flags; adds those that need no code of their own."""
    text = tree.text(CMAKE)
    _require_flags(tree, wanted, text)
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


def not_in_release(tree: Tree, wanted: Wanted, why: str, *, remedy: str) -> VariantNotInReleaseError:
    """The error of a variant that a release has no code for."""
    what = f"vLLM {tree.release} cannot be built as {wanted.variant.name}"
    return VariantNotInReleaseError(what, why=why, remedy=remedy)


PATCH = Patch(name="host-detected", apply=apply, families=("host-detected",))
