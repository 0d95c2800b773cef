"""Host-detected family: compiles the oneDNN that the pipeline fetched, without the variant's definitions.

Up to 0.11.0 upstream clones oneDNN while it configures, whatever source lies at hand; later releases read a variable of
the environment. The clone would be another source than the one that was looked at, or none without a network.

From 0.11.1 on upstream defines ``CPU_CAPABILITY_AMXBF16`` for the directory before it adds oneDNN to it, and so for
all of oneDNN's files. oneDNN does not use that name; the definition only makes a compiler cache miss, and the variants
would not share oneDNN's objects.
"""

from __future__ import annotations

from vllm_wheels.core.formats.cmake import CMakeCommand, commands
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE

CAPABILITY = "-DCPU_CAPABILITY_"
LOCAL = "FETCHCONTENT_SOURCE_DIR_ONEDNN"
"""CMake's own variable; upstream's name for it in the environment as well."""

AROUND = """\
get_directory_property(_DEFINITIONS COMPILE_DEFINITIONS)
    set(_ONEDNN_DEFINITIONS ${{_DEFINITIONS}})
    list(FILTER _ONEDNN_DEFINITIONS EXCLUDE REGEX "^(-D)?CPU_CAPABILITY_")
    set_directory_properties(PROPERTIES COMPILE_DEFINITIONS "${{_ONEDNN_DEFINITIONS}}")
    {joining}
    set_directory_properties(PROPERTIES COMPILE_DEFINITIONS "${{_DEFINITIONS}}")"""


def apply(tree: Tree, wanted: Wanted) -> None:  # noqa: ARG001 - the same for all variants
    """Adds oneDNN from the folder that the environment names, and without definitions that are made by then.

    Raises:
        PatchError: oneDNN is added in a way that the patch does not know.
    """
    text = tree.text(CMAKE)
    found = commands(text)
    defining = [command.start for command in found if _defines_capability(command)]
    joining = [command for command in found if _joins(command)]
    if not joining:
        raise tree.missing(CMAKE, "FetchContent_MakeAvailable(oneDNN)")
    local = "" if LOCAL in text else f'set({LOCAL} "$ENV{{{LOCAL}}}")\n    '
    for command in reversed(joining):
        joined = local + text[command.start : command.end]
        if defining and defining[0] < command.start:
            joined = AROUND.format(joining=joined)
        text = text[: command.start] + joined + text[command.end :]
    tree.write(CMAKE, text)


def _defines_capability(command: CMakeCommand) -> bool:
    named = command.arguments[:1]
    return command.name == "add_compile_definitions" and any(each.startswith(CAPABILITY) for each in named)


def _joins(command: CMakeCommand) -> bool:
    return command.name == "fetchcontent_makeavailable" and "onednn" in (name.lower() for name in command.arguments)


PATCH = Patch(name="onednn", apply=apply, families=("host-detected",))
