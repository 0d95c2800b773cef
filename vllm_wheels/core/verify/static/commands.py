"""The command vllm is there, leads somewhere, and no code asks for a distribution that is not installed."""

import ast
import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser, Error
from functools import lru_cache
from pathlib import PurePosixPath

from vllm_wheels.core.patches.lookups import UPSTREAM_NAME, lookups
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed, skipped
from vllm_wheels.core.verify.static.known import fits, patterns
from vllm_wheels.core.verify.static.startup import installed_at
from vllm_wheels.core.verify.unpacked import UnpackedWheel

UNTOLD = ("*", "__getattr__")
"""Names of a module that may have any other."""

GROUPS = ("console_scripts", "gui_scripts")
COMMAND = "vllm"
COMMAND_MODULE = "vllm/entrypoints/cli/main.py"
REFERENCE = re.compile(r"\s*(?P<module>[\w.]+)\s*(?::\s*(?P<name>[\w.]+)\s*)?(?:\[.*\]\s*)?")
"""``module:name [extra]`` (entry points specification)."""

CANDIDATE = re.compile(r"""["']vllm["']""")
TAKING = frozenset({"PackageNotFoundError", "ModuleNotFoundError", "ImportError", "Exception", "BaseException"})
"""The exception that there is no such distribution, and those above it."""

SCRIPT = re.compile(r"[^/]*\.data/(?:scripts|data/bin)/[^/]+")
"""Where a wheel keeps what becomes a command (binary distribution format; sysconfig, scheme ``posix_prefix``)."""

EVERYWHERE = ("#!/usr/bin/env ", "#!/bin/sh", "#!/bin/bash")
SHEBANG, PYTHON = "#!", re.compile(r"#!\s*pythonw?\s")
"""Installers replace ``#!python`` by the environment's own (binary distribution format)."""


class _CaseSensitive(ConfigParser):
    """Reads entry points, whose names have capitals."""

    def optionxform(self, optionstr: str) -> str:
        """The name as it stands there."""
        return optionstr


def _entry_points(unpacked: UnpackedWheel) -> Judgement:
    parser = _CaseSensitive(delimiters=("=",), interpolation=None, strict=True)
    remedy = f"declare [project.scripts] {COMMAND} = 'module:function' of a function that is there"
    try:
        parser.read_string(unpacked.text(f"{unpacked.file.dist_info}/entry_points.txt"))
    except Error as error:
        return convicted(f"entry_points.txt cannot be read: {error}", remedy=remedy)
    points = {(group, name): value for group in parser.sections() for name, value in parser.items(group)}
    commands = {name: value for (group, name), value in points.items() if group in GROUPS}
    scripts = {PurePosixPath(name).name: name for name in _scripts(unpacked)}
    faults = [] if COMMAND in {*commands, *scripts} else [f"it brings no command {COMMAND}"]
    taken = patterns("foreign", "commands")
    faults += [f"its command {name} hides another" for name in sorted({*commands, *scripts}) if fits(name, taken)]
    asked, modules = patterns("foreign", "groups"), _modules(unpacked)
    faults += [
        f"its entry point {name} is run by whoever looks for {group}" for group, name in points if group in asked
    ]
    faults += [
        f"{name} = {value}: {why}"
        for (_, name), value in points.items()
        if (why := _dangling(unpacked, modules, value))
    ]
    faults += [fault for name in scripts.values() if (fault := _fixed(unpacked, name))]
    if faults:
        return convicted_of(faults, remedy=remedy)
    others = sorted({*commands, *scripts} - {COMMAND})
    if others:
        line = f"beside {COMMAND} it brings the commands {', '.join(others)}"
        return convicted(line, remedy="leave them out, or ship them as a package of their own", severity="warning")
    return passed(f"the command {COMMAND} leads to {commands.get(COMMAND) or scripts[COMMAND]}")


def _dangling(unpacked: UnpackedWheel, modules: Mapping[str, str], value: str) -> str | None:
    match = REFERENCE.fullmatch(value)
    if match is None:
        return "it is not of the form module:name"
    path = modules.get(match["module"].replace(".", "/"))
    if path is None:
        return f"there is no module {match['module']}"
    name = (match["name"] or "").partition(".")[0]
    if not name or path.endswith(".so") or not _names(unpacked.text(path)).isdisjoint({name, *UNTOLD}):
        return None
    return f"{path} has no {name}"


def _modules(unpacked: UnpackedWheel) -> dict[str, str]:
    """The member that is each module, by the path of the module without suffix; source before machine code."""
    places = [(place, name) for name in unpacked.file.members if (place := installed_at(name))]
    compiled = {place.partition(".")[0]: name for place, name in places if place.endswith(".so")}
    sources = {place[:-3].removesuffix("/__init__"): name for place, name in places if place.endswith(".py")}
    return compiled | sources


@lru_cache(maxsize=8)
def _names(source: str) -> frozenset[str]:
    """The names that a module has, with one of ``UNTOLD`` where that cannot be told."""
    try:
        body = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset(UNTOLD)
    names: set[str] = set()
    for node in ast.walk(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return frozenset({*names, *(UNTOLD if "globals()" in source else ())})


def _scripts(unpacked: UnpackedWheel) -> Iterator[str]:
    """Members that are installed into the folder of commands."""
    return (name for name in unpacked.file.members if SCRIPT.fullmatch(name))


def _fixed(unpacked: UnpackedWheel, name: str) -> str | None:
    with (unpacked.folder / name).open("rb") as stream:
        first = stream.readline(200).decode("utf-8", "replace")
    if first.startswith(SHEBANG) and not PYTHON.match(first) and not first.startswith(EVERYWHERE):
        return f"its script {PurePosixPath(name).name} begins with {first.strip()}, which other machines need not have"
    return None


def _own_name(unpacked: UnpackedWheel) -> Judgement:
    if unpacked.distribution == UPSTREAM_NAME:
        return skipped(f"it is the distribution {UPSTREAM_NAME} itself")
    asking = [name for name in unpacked.file.members if name.endswith(".py") and _asks(unpacked.text(name))]
    if not asking:
        return passed(f"no code needs an installed distribution {UPSTREAM_NAME}")
    where = COMMAND_MODULE if COMMAND_MODULE in asking else asking[0]
    line = f"{where} asks for the installed distribution {UPSTREAM_NAME}, and this is {unpacked.distribution}"
    dead = f"{line}: the command {COMMAND} ends in PackageNotFoundError"
    remedy = f"ask for {unpacked.distribution}, or answer for {UPSTREAM_NAME} through sys.meta_path"
    return convicted(dead if where == COMMAND_MODULE else line, evidence="\n".join(asking), remedy=remedy)


def _asks(source: str) -> bool:
    """Whether a module asks without being ready for the answer that there is no such distribution."""
    if "metadata" not in source or not CANDIDATE.search(source):
        return False
    try:
        module = ast.parse(source)
        asked = [found.line for found in lookups(module) if found.of_upstream]
        caught = [
            range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1)
            for node in ast.walk(module)
            if isinstance(node, ast.Try) and any(_is_ready(handler) for handler in node.handlers)
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not any(line in lines for lines in caught) for line in asked)


def _is_ready(handler: ast.ExceptHandler) -> bool:
    """Whether it takes the exception that there is no such distribution."""
    return handler.type is None or not TAKING.isdisjoint(re.findall(r"\w+", ast.unparse(handler.type)))


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("entry-points", "look where the commands lead", _entry_points),
    Check("own-name", "look for questions after the distribution vllm", _own_name, seconds=1),
)
