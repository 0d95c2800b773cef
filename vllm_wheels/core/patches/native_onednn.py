"""Host-detected family: compiles oneDNN without the variant's definitions, so that all variants share its objects.

From 0.11.1 on upstream defines ``CPU_CAPABILITY_AMXBF16`` for the directory before it adds oneDNN to it, and so for all
of oneDNN's files. oneDNN does not use that name; the definition only makes a compiler cache miss.
"""

from __future__ import annotations

from vllm_wheels.core.formats.cmake import CMakeCommand, commands
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE

CAPABILITY = "-DCPU_CAPABILITY_"
AROUND = """\
get_directory_property(_DEFINITIONS COMPILE_DEFINITIONS)
    set(_ONEDNN_DEFINITIONS ${{_DEFINITIONS}})
    list(FILTER _ONEDNN_DEFINITIONS EXCLUDE REGEX "^(-D)?CPU_CAPABILITY_")
    set_directory_properties(PROPERTIES COMPILE_DEFINITIONS "${{_ONEDNN_DEFINITIONS}}")
    {joining}
    set_directory_properties(PROPERTIES COMPILE_DEFINITIONS "${{_DEFINITIONS}}")"""


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Removes the definitions while oneDNN is added, in releases that have made them by then.

    Raises:
        PatchError: oneDNN is added in a way that the patch does not know.
    """
    text = tree.text(CMAKE)
    found = commands(text)
    defining = [command.start for command in found if _defines_capability(command)]
    joining = [command for command in found if _joins(command)]
    if not joining:
        raise tree.missing(CMAKE, "FetchContent_MakeAvailable(oneDNN)")
    for command in reversed(joining):
        if defining and defining[0] < command.start:
            around = AROUND.format(joining=text[command.start : command.end])
            text = text[: command.start] + around + text[command.end :]
    tree.write(CMAKE, text)


def _defines_capability(command: CMakeCommand) -> bool:
    named = command.arguments[:1]
    return command.name == "add_compile_definitions" and any(each.startswith(CAPABILITY) for each in named)


def _joins(command: CMakeCommand) -> bool:
    return command.name == "fetchcontent_makeavailable" and "onednn" in (name.lower() for name in command.arguments)


PATCH = Patch(name="onednn", apply=apply, families=("host-detected",))
