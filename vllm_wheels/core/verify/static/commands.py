"""The command vllm is there, leads somewhere, and no code asks for a distribution that is not installed."""

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser, Error
from pathlib import PurePosixPath

from vllm_wheels.core.patches.lookups import UPSTREAM_NAME, lookups
from vllm_wheels.core.verify.checks import Check, Judgement, convicted, convicted_of, passed, skipped
from vllm_wheels.core.verify.static.known import fits, patterns
from vllm_wheels.core.verify.unpacked import UnpackedWheel

CONSOLE, GUI = "console_scripts", "gui_scripts"
COMMAND = "vllm"
COMMAND_MODULE = "vllm/entrypoints/cli/main.py"
REFERENCE = re.compile(r"\s*(?P<module>[\w.]+)\s*(?::\s*(?P<name>[\w.]+)\s*)?(?:\[.*\]\s*)?")
"""``module:name [extra]`` (entry points specification)."""

CANDIDATE = re.compile(r"""metadata[\s\S]*["']vllm["']""")

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
    commands = {name for group, name in points if group in {CONSOLE, GUI}}
    faults = [] if COMMAND in commands else [f"it brings no command {COMMAND}"]
    taken = patterns("foreign", "commands")
    faults += [f"its command {name} takes the place of another" for name in sorted(commands) if fits(name, taken)]
    faults += [f"{name} = {value}: {why}" for (_, name), value in points.items() if (why := _dangling(unpacked, value))]
    faults += _scripts(unpacked)
    if faults:
        return convicted_of(faults, remedy=remedy)
    others = sorted(commands - {COMMAND})
    if others:
        line = f"beside {COMMAND} it brings the commands {', '.join(others)}"
        return convicted(line, remedy="leave them out, or ship them as a package of their own", severity="warning")
    return passed(f"the command {COMMAND} leads to {points[CONSOLE, COMMAND]}")


def _dangling(unpacked: UnpackedWheel, value: str) -> str | None:
    match = REFERENCE.fullmatch(value)
    if match is None:
        return "it is not of the form module:name"
    place = match["module"].replace(".", "/")
    if f"{place}/__init__.py" not in unpacked.file.members and f"{place}.py" not in unpacked.file.members:
        return f"there is no module {match['module']}"
    name = (match["name"] or "").partition(".")[0]
    path = f"{place}.py" if f"{place}.py" in unpacked.file.members else f"{place}/__init__.py"
    return f"{path} has no {name}" if name and not _defines(unpacked.text(path), name) else None


def _defines(source: str, name: str) -> bool:
    """Whether a module has a name; where that cannot be told, it may."""
    try:
        body = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    names: set[str] = set()
    for node in ast.walk(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return name in names or "*" in names or "__getattr__" in names


def _scripts(unpacked: UnpackedWheel) -> Iterator[str]:
    taken = patterns("foreign", "commands")
    for name in unpacked.file.members:
        parts = PurePosixPath(name).parts
        if len(parts) == 3 and parts[0].endswith(".data") and parts[1] == "scripts":  # noqa: PLR2004 - X.data/scripts/NAME
            if fits(parts[2], taken):
                yield f"its script {parts[2]} takes the place of another"
            with (unpacked.folder / name).open("rb") as stream:
                first = stream.readline(200).decode("utf-8", "replace")
            if first.startswith(SHEBANG) and not PYTHON.match(first) and not first.startswith("#!/usr/bin/env "):
                yield f"its script {parts[2]} begins with {first.strip()}, a path of the machine that built it"


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
    if not CANDIDATE.search(source):
        return False
    try:
        module = ast.parse(source)
        asked = [found.line for found in lookups(module) if found.of_upstream]
        caught = [
            range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1)
            for node in ast.walk(module)
            if isinstance(node, ast.Try) and node.handlers
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not any(line in lines for lines in caught) for line in asked)


CHECKS: tuple[Check[UnpackedWheel], ...] = (
    Check("entry-points", "look where the commands lead", _entry_points),
    Check("own-name", "look for questions after the distribution vllm", _own_name, seconds=1),
)
