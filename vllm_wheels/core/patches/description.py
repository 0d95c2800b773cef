"""Describes a release by its source tree: all that the patches rely on, as data that people and programs compare."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from vllm_wheels.core.formats import requirement_files
from vllm_wheels.core.formats.cmake import CMakeCommand, commands
from vllm_wheels.core.formats.markers import applies
from vllm_wheels.core.patches import lookups, native_flags, native_unified, upstream
from vllm_wheels.core.patches.extensions import KERNELS
from vllm_wheels.core.patches.known import known
from vllm_wheels.core.patches.licence import LICENSE, LICENSE_FILE, stated, text_of
from vllm_wheels.core.patches.pyproject import optional_dependencies
from vllm_wheels.core.patches.tree import Tree
from vllm_wheels.core.patches.upstream import CMAKE, CPU, PYPROJECT

Named = Mapping[str, tuple[str, ...]]
"""Sorted texts by name."""

QUESTION = re.compile(r"\b(torch\.cpu\._\w+|torch\._C\._cpu\._\w+|get_cpu_capability|cpu_has_\w+)")
QUESTION_WORDS = ("torch.cpu._", "torch._C._cpu._", "get_cpu_capability", "cpu_has_")
IMPORT = re.compile(rf"\bvllm\.({KERNELS}\w*)")
SOURCE_LIST = re.compile(r"VLLM_EXT_SRC\w*")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a release is, as far as patches rely on it.

    Attributes:
        licence: what pyproject.toml says and, in parentheses, whether the text of LICENSE is known.
        torch: each requirement of torch for x86-64, with its form: ``exact``, ``range``, ``URL`` or ``any version``.
        onednn: tag and repository.
        requirements: lines of requirements/cpu.txt with its includes; ``build_requirements`` those of the build.
        extras: requirement lines by extra.
        extensions: what is built for an x86-64 CPU, with the lists of sources and flags where upstream divides by them.
        flags: by list, what may be in it on an x86-64 Linux host; ``machine_flags`` those that choose instructions.
        sources: by list, what may be in it.
        lookups: by file, calls that ask for the distribution ``vllm``, or for one whose name is computed.
        questions: by question about the CPU, the files that ask it.
        imports: by extension ``_C...``, the files that name it.
    """

    release: str
    family: str
    licence: str
    pythons: tuple[str, ...]
    torch: tuple[str, ...]
    onednn: str
    requirements: tuple[str, ...]
    build_requirements: tuple[str, ...]
    extras: Named
    extensions: Named
    flags: Named
    machine_flags: Named
    sources: Named
    lookups: Named = field(default_factory=dict)
    questions: Named = field(default_factory=dict)
    imports: Named = field(default_factory=dict)


def describe(root: Path, *, release: str) -> Description:
    """Reads a tree.

    Raises:
        SourceError: what ``upstream.read`` cannot understand.
        PatchError: a Python file or a list of extras cannot be read.
    """
    demands = upstream.read(root, release=release)
    tree = Tree(root=root, release=release)
    text = tree.text(CMAKE)
    names = _lists(commands(text))
    machine = {path: _machine_flags(tree.text(path)) for path in native_flags.FILES if tree.has(path)}
    return Description(
        release=release,
        family=demands.family,
        licence=_licence(tree),
        pythons=demands.pythons,
        torch=tuple(_torch(demands)),
        onednn=f"{demands.onednn_tag} of {demands.onednn_url}",
        requirements=demands.runtime_requirements,
        build_requirements=demands.build_requirements,
        extras={name: tuple(lines) for name, lines in sorted(optional_dependencies(tree).items())},
        extensions=_extensions(tree, demands, text),
        flags={
            name: native_flags.flags_of(text, [f"${{{name}}}"])
            for name in names
            if native_flags.FLAG_LIST.fullmatch(name)
        },
        machine_flags={path: flags for path, flags in machine.items() if flags},
        sources={name: native_flags.flags_of(text, [f"${{{name}}}"]) for name in names if SOURCE_LIST.fullmatch(name)},
        lookups=_lookups(tree),
        questions=_files(tree, QUESTION, *QUESTION_WORDS),
        imports=_files(tree, IMPORT, f"vllm.{KERNELS}"),
    )


def differences(before: Description, after: Description) -> Iterator[str]:
    """What changed from one release to another, a line each: ``-`` was, ``+`` is now, with the part it belongs to."""
    old, new = list(lines(before)), list(lines(after))
    gone, come = set(old) - set(new), set(new) - set(old)
    for line in [*(f"- {line}" for line in old if line in gone), *(f"+ {line}" for line in new if line in come)]:
        if not line[2:].startswith("release:"):
            yield line


def lines(description: Description) -> Iterator[str]:
    """The description, one fact a line."""
    for name, value in vars(description).items():
        if isinstance(value, str):
            yield f"{name}: {value}"
        elif isinstance(value, tuple):
            yield from (f"{name}: {each}" for each in value)
        else:
            for key, values in value.items():
                yield from (f"{name}: {key}: {each}" for each in values or ("(nothing)",))


def _licence(tree: Tree) -> str:
    said = stated(tomllib.loads(tree.text(PYPROJECT)).get("project", {})) or "nothing"
    is_known = text_of(tree) in known().licences[LICENSE]
    text = f"the known text of {LICENSE}" if is_known else f"a text that is not known, SHA-256 {text_of(tree)[:12]}"
    return f"{said} ({LICENSE_FILE} has {text})"


def _machine_flags(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(flag for flag, _ in native_flags.machine_flags(text)))


def _torch(demands: upstream.Upstream) -> Iterator[str]:
    for file, found in ((CPU, demands.runtime_requirements), ("the build", demands.build_requirements)):
        for line in found:
            requirement = requirement_files.parse(line, file=file)
            if canonicalize_name(requirement.name) == "torch" and applies(requirement, demands.pythons):
                exact = "exact" if requirement_files.pinned(requirement) else ""
                form = exact or (requirement.url and "URL") or (requirement.specifier and "range") or "any version"
                yield f"{form} in {file}: {line}"


def _extensions(tree: Tree, demands: upstream.Upstream, text: str) -> Named:
    found: dict[str, tuple[str, ...]] = dict.fromkeys(demands.extensions, ())
    found |= {name: (f"from Python {python} on",) for name, python in demands.later_extensions}
    if demands.family == "unified":
        for target in native_unified.x86_targets(tree, text):
            options = native_unified.options_of(target)
            found[target.arguments[0]] = tuple(
                f"{keyword} {' '.join(options[keyword])}" for keyword in sorted(options) if options[keyword]
            )
    return found


def _lists(found: tuple[CMakeCommand, ...]) -> tuple[str, ...]:
    places = ((command, native_flags.GROWING.get(command.name)) for command in found if command.reached is not False)
    return tuple(sorted({command.arguments[at - 1] for command, at in places if at and len(command.arguments) >= at}))


def _lookups(tree: Tree) -> Named:
    found: dict[str, tuple[str, ...]] = {}
    for path in tree.code_with(*lookups.SIGNS):
        asked = [each for each in lookups.lookups(tree.module(path)) if each.literal is None or each.of_upstream]
        if asked:
            found[path] = tuple(
                dict.fromkeys(f"{each.asks}({'vllm' if each.literal else '<computed>'})" for each in asked)
            )
    return found


def _files(tree: Tree, sign: re.Pattern[str], *words: str) -> Named:
    found: dict[str, set[str]] = {}
    for path in tree.code_with(*words):
        for name in sign.findall(tree.text(path)):
            found.setdefault(name, set()).add(path)
    return {name: tuple(sorted(paths)) for name, paths in sorted(found.items())}
