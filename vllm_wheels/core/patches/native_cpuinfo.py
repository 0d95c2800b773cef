"""Makes the configure step see the variant's CPU features in place of the build machine's.

Upstream reads ``/proc/cpuinfo`` into a variable and searches it for words. In the host-detected family that decides the
instruction sets; in the unified family it should decide nothing on x86-64, and with this patch cannot.
"""

from __future__ import annotations

from vllm_wheels.core.formats.cmake import commands
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE

READING = "execute_process(COMMAND cat /proc/cpuinfo ... OUTPUT_VARIABLE CPUINFO)"
VARIABLE = "CPUINFO"


def apply(tree: Tree, wanted: Wanted) -> None:
    """Overwrites the variable right after upstream reads ``/proc/cpuinfo`` into it."""
    text = tree.text(CMAKE)
    readings = [
        command
        for command in commands(text)
        if command.name == "execute_process" and {"/proc/cpuinfo", VARIABLE} <= set(command.arguments)
    ]
    if len(readings) != 1:
        raise tree.missing(CMAKE, READING, found=len(readings))
    end = readings[0].end
    words = " ".join(wanted.code.cpuinfo)
    tree.write(CMAKE, f'{text[:end]}\n    set({VARIABLE} "{words}"){text[end:]}')


PATCH = Patch(name="cpuinfo", apply=apply)
