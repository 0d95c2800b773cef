"""Reads from a vLLM source tree what it requires: torch, Pythons, oneDNN, extensions; refuses unknown layouts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import BaseModel, Field, ValidationError

from vllm_wheels.core.errors import SourceError, UnknownFamilyError
from vllm_wheels.core.formats import cmake, requirement_files, setup_script
from vllm_wheels.core.formats.markers import applies
from vllm_wheels.core.formats.python_ranges import supports

Family = Literal["host-detected", "unified"]

CMAKE = "cmake/cpu_extension.cmake"
PYPROJECT = "pyproject.toml"
SETUP = "setup.py"
METADATA = "PKG-INFO"
CPU = "requirements/cpu.txt"

ANCHORS: Mapping[Family, tuple[str, ...]] = {
    "unified": (r"set\s*\(\s*VLLM_EXT_SRC_AVX2\b", r"define_\w*extension_target\s*\(\s*_C_AVX2\b"),
    "host-detected": (r"/proc/cpuinfo", r"find_isa\s*\(", r"ENV\{VLLM_CPU_(AVX512\w*|DISABLE_AVX512)\}"),
}
"""What each family's cpu_extension.cmake holds, all of it, once its comments are gone; the first that fits is taken."""

BUILD_FILES = ("requirements/build/cpu.txt", "requirements/cpu-build.txt", "requirements/build.txt")
"""Where build requirements are, the newest layout first; the last one is shared with CUDA (0.8.5, 0.9.0)."""

FIRST = Version("0.8.5")
"""The first release of the host-detected family."""

CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """What a release requires, by its source tree.

    Attributes:
        release: version the tree says it is.
        family: ``host-detected`` (one extension, instruction sets decided at configure time) or ``unified``.
        torch: version that ``requirements/cpu.txt`` pins for x86-64, without its local part.
        pythons: supported Pythons, lowest first, such as ``("3.11", "3.12")``.
        onednn_url: git repository of oneDNN.
        onednn_tag: tag of oneDNN for x86-64.
        extensions: extension targets of an x86-64 CPU build on every supported Python, such as ``("spinloop", "_C")``.
        later_extensions: further ones with the Python from which on upstream builds them, such as
            ``(("spinloop", "3.11"),)`` for 0.28.0, which supports 3.10 as well.
        build_requirements: requirement lines that a CPU build needs, torch among them, merged.
        runtime_requirements: requirement lines of ``requirements/cpu.txt`` with its includes, comments stripped.
    """

    release: str
    family: Family
    torch: str
    pythons: tuple[str, ...]
    onednn_url: str
    onednn_tag: str
    extensions: tuple[str, ...]
    build_requirements: tuple[str, ...]
    runtime_requirements: tuple[str, ...]
    later_extensions: tuple[tuple[str, str], ...] = ()


def read(tree: Path, *, release: str) -> Upstream:
    """Reads what an unpacked tree requires; where it states its own release, that must be the given one.

    Raises:
        UnknownFamilyError: it is no vLLM tree, or one of a family that is not known.
        SourceError: it is of another release, or a pin cannot be read; names the file.
    """
    if Version(release) < FIRST:
        what = f"vLLM {release} is not supported"
        why = f"the patches know releases from {FIRST} on"
        raise UnknownFamilyError(what, why=why, remedy=f"choose a release from {FIRST} on (vllm-wheels release list)")
    text = _family_text(tree, release)
    family = _family(text, release)
    pyproject = _PyProject.read(tree)
    project = pyproject.project
    pythons = _pythons(project)
    runtime = requirement_files.read(tree / CPU, root=tree)
    build = _build_lines(tree, pythons)
    torch, pin = _torch(runtime, build, pythons)
    build = requirement_files.merged(build, (pin,), file=CPU)
    url, tag = _onednn(text)
    extensions, later = _extensions(tree, pythons)
    return Upstream(
        release=_release(tree, release),
        family=family,
        torch=torch,
        pythons=pythons,
        onednn_url=url,
        onednn_tag=tag,
        extensions=extensions,
        later_extensions=later,
        build_requirements=requirement_files.merged(pyproject.build_system.requires, build, file=PYPROJECT),
        runtime_requirements=runtime,
    )


def _family_text(tree: Path, release: str) -> str:
    try:
        return cmake.uncommented((tree / CMAKE).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        what = f"{tree} is no source tree of vLLM {release} that can be built for CPUs"
        why = f"it has no readable {CMAKE}"
        raise UnknownFamilyError(
            what, why=why, remedy="choose a release from 0.8.5 on, or the root of its tree"
        ) from error


def _family(text: str, release: str) -> Family:
    for family, anchors in ANCHORS.items():
        if all(re.search(anchor, text) for anchor in anchors):
            return family
    missing = "; ".join(
        f"{family}: {next(anchor for anchor in anchors if not re.search(anchor, text))}"
        for family, anchors in ANCHORS.items()
    )
    what = f"the source of vLLM {release} is laid out in a way that is not known"
    why = f"{CMAKE} does not match ({missing})"
    raise UnknownFamilyError(what, why=why, remedy="choose a release from 0.8.5 on (vllm-wheels release list)")


def _release(tree: Path, release: str) -> str:
    try:
        stated = HeaderParser().parsestr((tree / METADATA).read_text("utf-8"))["Version"] or release
        same = Version(stated).public == Version(release).public
    except FileNotFoundError:  # Only source archives have this file; a repository leaves the version to its tags.
        return release
    except (OSError, ValueError) as error:
        raise _unreadable(METADATA, str(error)) from error
    if not same:
        what = f"{tree} is not the source of vLLM {release}"
        why = f"its {METADATA} says {stated}"
        raise SourceError(what, why=why, remedy=f"build release {stated}, or name the tree of {release}")
    return release


class _Project(BaseModel):
    """The fields of the table [project] that something here relies on (PEP 621), and their types."""

    requires_python: str = Field("", alias="requires-python")
    classifiers: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    license_files: tuple[str, ...] | dict[str, Any] = Field((), alias="license-files")


class _BuildSystem(BaseModel):
    requires: tuple[str, ...] = ()


class _PyProject(BaseModel):
    project: _Project = _Project()
    build_system: _BuildSystem = Field(_BuildSystem(), alias="build-system")

    @classmethod
    def read(cls, tree: Path) -> _PyProject:
        try:
            return cls.model_validate(tomllib.loads((tree / PYPROJECT).read_text("utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise _unreadable(PYPROJECT, f"{place}: {first['msg']}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise _unreadable(PYPROJECT, str(error)) from error


def _pythons(project: _Project) -> tuple[str, ...]:
    try:
        SpecifierSet(project.requires_python)
    except InvalidSpecifier as error:
        raise _unreadable(PYPROJECT, f"requires-python is {project.requires_python!r}") from error
    named = [match[1] for line in project.classifiers if (match := CLASSIFIER.fullmatch(line))]
    pythons = [python for python in named if supports(project.requires_python, python)]
    if not pythons:
        raise _unreadable(PYPROJECT, "no classifier names a Python that requires-python allows")
    return tuple(sorted(pythons, key=Version))


def _build_lines(tree: Path, pythons: Sequence[str]) -> tuple[str, ...]:
    for file in BUILD_FILES:
        if (tree / file).is_file():
            lines = requirement_files.read(tree / file, root=tree)
            return tuple(line for line in lines if applies(requirement_files.parse(line, file=file), pythons))
    return ()


def _torch(runtime: Sequence[str], build: Sequence[str], pythons: Sequence[str]) -> tuple[str, str]:
    for file, lines in ((CPU, runtime), ("the build requirements", build)):
        pins = {line: version for line in lines if (version := _pinned_torch(line, file, pythons))}
        if len(set(pins.values())) > 1:
            raise _unreadable(file, f"it pins torch for x86-64 more than once: {'; '.join(pins)}")
        if pins:
            torch = Version(next(iter(pins.values())))
            _require_in_range(torch, runtime, pythons)
            return torch.public, next(iter(pins))
    raise _unreadable(CPU, "it pins no torch for x86-64 to one version (looked for 'torch==...')")


def _require_in_range(torch: Version, runtime: Sequence[str], pythons: Sequence[str]) -> None:
    for line in runtime:
        requirement = requirement_files.parse(line, file=CPU)
        if _is_torch(requirement, pythons) and not requirement.specifier.contains(torch, prereleases=True):
            raise _unreadable(CPU, f"it asks for {line!r}, and the build requirements pin torch {torch}")


def _pinned_torch(line: str, file: str, pythons: Sequence[str]) -> str | None:
    requirement = requirement_files.parse(line, file=file)
    pin = requirement_files.pinned(requirement)
    return str(pin) if pin and _is_torch(requirement, pythons) else None


def _is_torch(requirement: Requirement, pythons: Sequence[str]) -> bool:
    return canonicalize_name(requirement.name) == "torch" and applies(requirement, pythons)


def _onednn(text: str) -> tuple[str, str]:
    declared = {
        (command.after("GIT_REPOSITORY"), command.after("GIT_TAG"))
        for command in cmake.commands(text)
        if command.name == "fetchcontent_declare"
        and command.reached is not False
        and command.arguments[:1]
        and command.arguments[0].lower() == "onednn"
    }
    pins = [(url, tag) for url, tag in declared if url and tag and "$" not in url + tag]
    if len(pins) != 1:
        found = ", ".join(sorted(tag for _, tag in pins)) or "none"
        raise _unreadable(CMAKE, f"it must fetch one oneDNN for x86-64, found: {found}")
    return pins[0]


def _extensions(tree: Path, pythons: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    try:
        text = (tree / SETUP).read_text("utf-8")
        built = {python: setup_script.extensions(text, python=python) for python in pythons}
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(SETUP, f"which extensions it builds cannot be told: {error}") from error
    always = built[pythons[0]]
    if not always or any(not set(always) <= set(names) for names in built.values()):
        raise _unreadable(SETUP, "it has no extension for an x86-64 CPU that it builds on every Python")
    since: dict[str, str] = {}
    for python, names in built.items():
        for name in names:
            since.setdefault(name, python)
    return always, tuple((name, python) for name, python in since.items() if name not in always)


def _unreadable(file: str, why: str) -> SourceError:
    what = f"{file} of the source tree cannot be understood"
    return SourceError(
        what, why=why.partition("\n")[0], remedy="choose another release, or correct the file in a local tree"
    )
