"""Unified family (from 0.17.0): one x86-64 extension, ``_C``, with the variant's sources, flags and definitions.

Upstream defines two or three extensions from lists of sources. The variant names the lists; flags are upstream's
common ones (``CXX_COMPILE_FLAGS``) and the variant's own; libraries, definitions and stable-ABI version are those of
the extension that upstream compiles from the same lists. Whatever of that the patch does not know is carried over with
a notice where it chooses no instructions, and refused otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from vllm_wheels.core.formats.cmake import CMakeCommand, commands
from vllm_wheels.core.patches.known import known
from vllm_wheels.core.patches.native_flags import COMMON, MACHINE, flags_of, of_variants, unknown_flag
from vllm_wheels.core.patches.native_host_detected import not_in_release
from vllm_wheels.core.patches.patch import Patch, Wanted
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE, SETUP
from vllm_wheels.core.variants import lowest

DEFINE = "define_extension_target"
MAY_STAND_BETWEEN = frozenset({DEFINE, "target_compile_definitions", "if", "endif", "message"})
FIXED: Mapping[str, list[str]] = {"DESTINATION": ["vllm"], "LANGUAGE": ["CXX"], "WITH_SOABI": []}
CLOSING = frozenset({"elseif", "else", "endif"})
KEYWORDS = frozenset({"DESTINATION", "LANGUAGE", "SOURCES", "LIBRARIES", "COMPILE_FLAGS", "USE_SABI", "WITH_SOABI"})

AMX_LIST, WIDE_LIST = "VLLM_EXT_SRC_SGL", "VLLM_EXT_SRC_AVX512"
AMX_ONLY = '"csrc/cpu/sgl-kernels/gemm.cpp"'
"""A source that does not compile without AMX. Up to 0.17.1 it is in the list for AVX-512, later in one of its own."""

COMMENTS_ABOVE = re.compile(r"(?:^ *#[^\n]*\n)*^ *\Z", re.MULTILINE)

ONEDNN_FLAGS = "${CXX_COMPILE_FLAGS_AVX2}"
WIDE_ONEDNN_FLAGS = ("APPEND", "DNNL_COMPILE_FLAGS", "${CXX_COMPILE_FLAGS_AVX512}")
SURPLUS = re.compile(r'^ *ext_modules\.append\(CMakeExtension\(name="vllm\._C_AVX\w+"\)\)\n', re.MULTILINE)
ONE_EXTENSION = 'ext_modules.append(CMakeExtension(name="vllm._C"))'

TARGET = """\
    # The one extension of this wheel.
    define_extension_target(
        _C
        DESTINATION vllm
        LANGUAGE CXX
        SOURCES {sources}
        LIBRARIES {libraries}
        COMPILE_FLAGS ${{CXX_COMPILE_FLAGS}} {flags}
        USE_SABI {stable_abi}
        WITH_SOABI
    )
"""
DEFINITION = "    target_compile_definitions(_C PRIVATE {definitions})\n"


def apply(tree: Tree, wanted: Wanted) -> None:
    """Replaces the targets in CMake and the extensions in setup.py; a whole build keeps upstream's.

    Raises:
        VariantNotInReleaseError: the release lacks a list of sources, or cannot compile it without AMX.
        PatchError: a file is laid out in a way that the patch does not know.
    """
    text = tree.text(CMAKE)
    if wanted.whole:
        tree.write(CMAKE, _with_portable_onednn(tree, text))
        return
    sources = _sources(tree, wanted, text)
    targets = x86_targets(tree, text)
    model = _model(tree, targets, sources)
    replaced = _replaced(tree, text, targets)
    made = _target_text(tree, wanted, sources, model, replaced)
    text = _with_one_target(text, replaced, made)
    tree.write(CMAKE, _with_portable_onednn(tree, text))
    declared = tree.text(SETUP)
    left, removed = SURPLUS.subn("", declared)
    if not removed or ONE_EXTENSION not in left or "_C_AVX" in left:
        raise tree.missing(SETUP, 'ext_modules.append(CMakeExtension(name="vllm._C_AVX2"))')
    tree.write(SETUP, left)


def _sources(tree: Tree, wanted: Wanted, text: str) -> tuple[str, ...]:
    lists = {command.arguments[0]: command.arguments[1:] for command in commands(text) if _sets_list(command)}
    names = wanted.code.sources
    if AMX_LIST not in lists and AMX_ONLY in lists.get(WIDE_LIST, ()):
        if names == (WIDE_LIST,):
            why = f"{CMAKE} has no {AMX_LIST}: its list {WIDE_LIST} holds the kernels that need AMX"
            raise not_in_release(tree, wanted, why, remedy=_remedy("baseline or amxbf16"))
        names = tuple(name for name in names if name != AMX_LIST)
    for name in names:
        if name not in lists:
            why = f'{CMAKE} has no list {name} (looked for it at "set({name}")'
            raise not_in_release(tree, wanted, why, remedy=_remedy("another variant"))
    return names


def _sets_list(command: CMakeCommand) -> bool:
    return command.name == "set" and bool(command.arguments) and command.arguments[0].startswith("VLLM_EXT_SRC_")


def _remedy(variants: str) -> str:
    return f"build --variant {variants}, or a release from 0.18.0 on (vllm-wheels release list)"


def x86_targets(tree: Tree, text: str) -> list[CMakeCommand]:
    """The definitions of the extensions for x86-64; PatchError where they are not laid out as known."""
    found = commands(text)
    conditions = {command.start: command.arguments for command in found if command.name == "if"}
    defined = [command for command in found if command.name == DEFINE and command.branch in conditions]
    x86 = [command for command in defined if conditions[command.branch or 0] == ("ENABLE_X86_ISA",)]
    names = ["".join(command.arguments[:1]) for command in x86]
    if "_C" not in names or "_C_AVX2" not in names:
        raise tree.missing(CMAKE, f"if (ENABLE_X86_ISA) ... {DEFINE}(_C_AVX2")
    if strange := [name for name in names if name not in known().extensions.x86 or names.count(name) > 1]:
        why = f"it defines {', '.join(strange)} for x86-64, where a variant's wheel has one of known extensions"
        raise tree.misfit(CMAKE, why=f"{why} ({', '.join(known().extensions.x86)})")
    return x86


def options_of(target: CMakeCommand) -> dict[str, list[str]]:
    """The arguments of a definition by keyword."""
    options: dict[str, list[str]] = {}
    keyword = ""
    for argument in target.arguments[1:]:
        if argument in KEYWORDS:
            keyword = argument
            options[keyword] = []
        else:
            options.setdefault(keyword, []).append(argument)
    return options


def _model(tree: Tree, targets: list[CMakeCommand], sources: tuple[str, ...]) -> CMakeCommand:
    """Upstream's target that compiles exactly these lists of sources."""
    references = [f"${{{name}}}" for name in sources]
    for target in targets:
        options = options_of(target)
        if sorted(options.get("SOURCES", ())) == sorted(references):
            if options.keys() != KEYWORDS or any(options[name] != words for name, words in FIXED.items()):
                raise tree.missing(
                    CMAKE, f"{DEFINE}({target.arguments[0]} DESTINATION vllm LANGUAGE CXX ... WITH_SOABI)"
                )
            return target
    raise tree.missing(CMAKE, f"{DEFINE}(... SOURCES {' '.join(references)}")


def _target_text(
    tree: Tree, wanted: Wanted, sources: tuple[str, ...], model: CMakeCommand, replaced: list[CMakeCommand]
) -> str:
    options = options_of(model)
    made = TARGET.format(
        sources=" ".join(f"${{{name}}}" for name in sources),
        libraries=" ".join(options["LIBRARIES"]),
        flags=" ".join([*wanted.code.flags, *_carried_flags(tree, options["COMPILE_FLAGS"])]),
        stable_abi=" ".join(options["USE_SABI"]),
    )
    if definitions := _definitions(tree, wanted, model, replaced):
        made += DEFINITION.format(definitions=" ".join(definitions))
    return made


def _carried_flags(tree: Tree, words: list[str]) -> list[str]:
    """What upstream compiles the extension with beside common flags and instruction sets, with a notice for each."""
    text = tree.text(CMAKE)
    common, flags = flags_of(text, [f"${{{COMMON}}}"]), flags_of(text, words)
    if lost := [flag for flag in common if flag not in flags]:
        why = f"{' '.join(words)} does not hold {', '.join(lost)} of {COMMON}, which the patch takes for common flags"
        raise tree.misfit(CMAKE, why=why)
    _require_no_more(tree, common, ())
    carried = [flag for flag in flags if flag not in common and flag not in of_variants()]
    for flag in carried:
        if MACHINE.fullmatch(flag):
            raise unknown_flag(tree, CMAKE, f"{flag} outside of {COMMON}")
        tree.notice(f"{flag} in {CMAKE}, which the patches do not know, is passed on to the compiler")
    return [f'"{flag}"' for flag in carried]


def _require_no_more(tree: Tree, flags: Iterable[str], own: Iterable[str]) -> None:
    """Makes sure that flags choose no instructions beside the common ones and a variant's own."""
    for flag in flags:
        if MACHINE.fullmatch(flag) and flag not in {*known().flags.common, *own}:
            raise unknown_flag(tree, CMAKE, f"{flag}, for more than the extensions of its own,")


def _definitions(tree: Tree, wanted: Wanted, model: CMakeCommand, replaced: list[CMakeCommand]) -> list[str]:
    found: list[str] = []
    conditions = {command.start: command.arguments for command in replaced}
    for command in replaced:
        if command.name != "target_compile_definitions" or command.arguments[:1] != model.arguments[:1]:
            continue
        condition = conditions.get(command.branch or -1, ())
        if command.branch == model.branch:
            found += command.arguments[2:]
        # Those ask the compiler, and two compilers would make two wheels.
        elif condition not in [(name,) for name in known().extensions.conditions]:
            why = f"{model.arguments[0]} gets {' '.join(command.arguments[2:])} under a condition that is not known"
            raise tree.misfit(CMAKE, why=f"{why}: {' '.join(condition)}")
    return list(dict.fromkeys([*found, *(f'"-D{name}"' for name in wanted.code.defines)]))


def _replaced(tree: Tree, text: str, targets: list[CMakeCommand]) -> list[CMakeCommand]:
    """The commands from the first extension for x86-64 to the one that closes their block, which stays.

    Raises:
        PatchError: one of them would be lost, or one elsewhere names an extension that the wheel does not have.
    """
    found = commands(text)
    opening = next(each for each in found if each.start == targets[0].branch)
    later = (each for each in found if each.start > targets[-1].end and each.branch == opening.branch)
    closing = next((each for each in later if each.name in CLOSING), None)
    if closing is None:
        raise tree.missing(CMAKE, "if (ENABLE_X86_ISA) ... endif()")
    between = [each for each in found if targets[0].start <= each.start < closing.start]
    lost = [each.name for each in between if each.name not in MAY_STAND_BETWEEN]
    lost += [" ".join(each.arguments[:1]) for each in between if each.name == DEFINE and each not in targets]
    if lost or any(target.branch != targets[0].branch for target in targets):
        raise tree.misfit(CMAKE, why=f"between the x86 extensions stands {lost or 'a condition'}, which would be lost")
    gone = {target.arguments[0] for target in targets} - {"_C"}
    for command in found:
        if gone & set(command.arguments) and command not in between:
            raise tree.misfit(CMAKE, why=f"{command.name}({' '.join(command.arguments)}) names what the wheel has not")
    return [*between, closing]


def _with_one_target(text: str, replaced: list[CMakeCommand], made: str) -> str:
    above = COMMENTS_ABOVE.search(text, 0, replaced[0].start)
    start = above.start() if above else replaced[0].start
    return text[:start] + made + text[replaced[-1].start :]


def _with_portable_onednn(tree: Tree, text: str) -> str:
    # The glue to oneDNN is linked into every variant, so it must run on the lowest one's CPUs.
    _require_no_more(tree, flags_of(text, [ONEDNN_FLAGS]), lowest().flags)
    found = commands(text)
    indirect = [command for command in found if command.arguments == WIDE_ONEDNN_FLAGS]
    for command in found:
        if command.name == "target_compile_options" and command.arguments[:1] == ("dnnl_ext",):
            if ONEDNN_FLAGS in command.arguments:
                return text
            if "${DNNL_COMPILE_FLAGS}" in command.arguments and len(indirect) == 1:
                start, end = indirect[0].start, indirect[0].end
                return f"{text[:start]}list(APPEND DNNL_COMPILE_FLAGS {ONEDNN_FLAGS}){text[end:]}"
    raise tree.missing(CMAKE, f"target_compile_options(dnnl_ext PRIVATE {ONEDNN_FLAGS}")


PATCH = Patch(name="unified", apply=apply, families=("unified",))
