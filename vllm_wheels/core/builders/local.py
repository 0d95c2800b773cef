"""Compiles with this host's own compiler, after a check that it will do."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import uv
from packaging.version import Version

from vllm_wheels.core.builders import network
from vllm_wheels.core.engine.builder import PLACE, Command, Mount
from vllm_wheels.core.errors import CompilerError, MachineError, UnsupportedPythonError
from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.host.machine import CONTAINER_REMEDY, distribution
from vllm_wheels.core.host.ownership import VARIABLE, owner
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.host.sandbox import SYSTEM, Sandbox, take_back

MINIMUM_COMPILER = "12.3"
"""Oldest g++ that knows all variants; older ones drop BF16, VNNI and AMX or are refused (cmake/cpu_extension.cmake)."""

CANDIDATES = ("g++-14", "g++-13", "g++-12", "g++", "/opt/rh/gcc-toolset-14/root/usr/bin/g++")
"""Names under which distributions install g++; the last is Red Hat's and its kin's, and not on PATH by itself."""

PROGRAMS = ("cc1", "cc1plus", "as", "ld")
"""Parts of the compiler that write machine code."""

ASK_SECONDS = 60.0
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TERM", "XDG_CACHE_HOME", "LD_LIBRARY_PATH")
"""What commands get of this process's environment: an unseen CXXFLAGS would change what a key stands for."""

INSIDE = {"HOME": "/tmp", "TMPDIR": "/tmp", "XDG_CACHE_HOME": "/tmp"}  # noqa: S108 - of a sandbox of its own
"""Variables that would name folders which the sandbox does not hold."""

DESCRIBE_PYTHON = """
import os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if os.path.isfile(header) and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print(version, os.path.join(sys.base_prefix, "bin", "python" + version))
"""
"""Prints version and path of the interpreter below the virtual environments, if it has what an extension needs."""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """A GNU C++ compiler (more than one word for the likes of ``ccache g++``) and the C compiler beside it."""

    cxx: tuple[str, ...]
    cc: tuple[str, ...]
    version: Version
    text: str


@dataclass(frozen=True, kw_only=True)
class LocalBuilder:
    """Runs commands on this host, in a sandbox that holds the system's programs and what the command names.

    Unguarded, nothing keeps them from the network, from this user's files, or from writing to read-only mounts.
    """

    runner: Runner = field(default_factory=Runner)
    minimum_compiler: str = MINIMUM_COMPILER
    unguarded: bool = False

    @property
    def name(self) -> str:
        """What a user calls it."""
        return "local"

    def identity(self) -> Mapping[str, Any]:
        """Compiler, its executables' hash, C library and machine; found out once.

        Raises:
            CompilerError: there is no g++, or only one that is too old.
            MachineError: the headers of libnuma are missing.
        """
        return self._identity

    @cached_property
    def _identity(self) -> Mapping[str, Any]:
        compiler = self.compiler()
        self._require_numa(compiler)
        programs = [self._ask([*compiler.cxx, f"-print-prog-name={name}"]).output.strip() for name in PROGRAMS]
        return {
            "kind": self.name,
            "compiler": compiler.text,
            "executables": _hash(programs),
            "libc": " ".join(platform.libc_ver()),
            "machine": platform.machine(),
        }

    def python(self, version: str) -> str:
        """Path of a Python of that version with its headers: this process's own, of PATH, or one that uv knows.

        Raises:
            UnsupportedPythonError: there is none.
        """
        found: dict[str, str] = {}
        for candidate in self._pythons(version):
            answer = self._ask([candidate, "-I", "-c", DESCRIBE_PYTHON])
            number, _, path = answer.output.strip().partition(" ")
            if answer.status == 0 and path:
                found[number] = path
            if version in found:
                return found[version]
        what = f"there is no Python {version} with its headers"
        why = f"found with Python.h: {', '.join(sorted(found)) or 'none'}"
        remedy = f"install python{version} with its headers (python{version}-dev), or: uv python install {version}"
        raise UnsupportedPythonError(what, why=why, remedy=remedy)

    def path(self) -> str:
        """PATH of this process."""
        return os.environ.get("PATH", os.defpath)

    def run(
        self,
        command: Command,
        *,
        log: Path | None = None,
        timeout_seconds: float | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Finished:
        """Runs a command with the host's paths in place of the mounts' places, CC and CXX set, and a bare environment.

        Raises:
            MachineError: the command or its folder does not exist, or there is no sandbox here.
            StepTimeoutError: it took longer than ``timeout_seconds``.
        """
        compiler = self.compiler()
        real = _translation(command.mounts)
        argv, folder = [real(word) for word in command.argv], Path(real(command.cwd))
        variables = _variables(command, compiler, real)
        try:
            _require_program(argv[0], variables.get("PATH") or self.path())
            if not self.unguarded:
                box = _sandbox(command, [*argv, *compiler.cxx, *compiler.cc])
                box.prepare()
                argv = box.words(argv, folder=folder)
                variables |= {name: value for name, value in INSIDE.items() if name not in command.env}
            return _with_listener(self.runner, on_line).run(
                argv, env=variables, cwd=folder, timeout_seconds=timeout_seconds, log=log
            )
        except FileNotFoundError as error:
            what = f"{command.argv[0]} cannot be started"
            why = f"{error.filename} does not exist"
            raise MachineError(what, why=why, remedy=f"install it, or {CONTAINER_REMEDY}") from error
        finally:
            if not self.unguarded:
                take_back(mount.source for mount in command.mounts if mount.writable and not mount.lent)

    def compiler(self) -> Compiler:
        """The compiler that CXX names, else the newest g++ on PATH; CompilerError where that is none, or too old."""
        chosen = os.environ.get("CXX", "").strip()
        names = (shlex.split(chosen),) if chosen else [[name] for name in CANDIDATES]
        found = [compiler for words in names if (compiler := self._compiler(words))]
        if not found:
            what = f"CXX={chosen} is not a GNU C++ compiler" if chosen else "there is no C++ compiler"
            why = (
                "it is not on PATH, or does not tell a version of g++"
                if chosen
                else f"looked for {', '.join(CANDIDATES)}"
            )
            raise CompilerError(what, why=why, remedy=_remedy(distribution().install_compiler()))
        newest = max(found, key=lambda compiler: compiler.version)
        if newest.version < Version(self.minimum_compiler):
            what = f"the C++ compiler is too old: {shlex.join(newest.cxx)} is g++ {newest.version}"
            why = f"vLLM needs g++ {self.minimum_compiler} or newer"
            raise CompilerError(what, why=why, remedy=_remedy(distribution().install_compiler()))
        return newest

    def _compiler(self, words: Sequence[str]) -> Compiler | None:
        program = shutil.which(words[0])
        if program is None:
            return None
        cxx = (program, *words[1:])
        number = self._ask([*cxx, "-dumpfullversion"])
        title = self._ask([*cxx, "--version"]).output.partition("\n")[0]
        if (version := version_in(number.output.strip())) is None:
            return None
        # The first word is the name it was called by, which says nothing about what it is.
        text = title.partition(" ")[2] or str(version)
        return Compiler(cxx=cxx, cc=_c_compiler(cxx), version=version, text=f"g++ {text}")

    def _require_numa(self, compiler: Compiler) -> None:
        probe = [*compiler.cxx, "-E", "-x", "c++", "-include", "numa.h", os.devnull, "-o", os.devnull]
        if self._ask(probe).status != 0:
            what = "the headers of libnuma are missing"
            why = f"{shlex.join(compiler.cxx)} does not find numa.h"
            raise MachineError(what, why=why, remedy=_remedy(distribution().install_numa()))

    def _pythons(self, version: str) -> Iterator[str]:
        yield sys.executable
        for folder in os.get_exec_path():
            program = Path(folder) / f"python{version}"
            if os.access(program, os.X_OK):
                yield str(program)
        known = self._ask([uv.find_uv_bin(), "python", "find", "--no-project", "--system", "--offline", version])
        if known.status == 0:
            yield known.output.strip()

    def _ask(self, argv: Sequence[str]) -> Finished:
        return self.runner.run(
            argv, timeout_seconds=ASK_SECONDS, env={"LC_ALL": "C.UTF-8"}, keep_output=True, quiet=True
        )


def _remedy(install: str | None) -> str:
    return f"{install}; or {CONTAINER_REMEDY}" if install else CONTAINER_REMEDY


def _c_compiler(cxx: tuple[str, ...]) -> tuple[str, ...]:
    chosen = os.environ.get("CC", "").strip()
    if chosen:
        return tuple(shlex.split(chosen))
    return tuple(_c_name(word) for word in cxx)


def _c_name(word: str) -> str:
    folder, name = os.path.split(word)
    if word.startswith("-") or not re.search(r"[gc]\+\+", name):
        return word
    partner = name.replace("g++", "gcc").replace("c++", "cc")
    return shutil.which(partner, path=folder or None) or partner


def _hash(paths: Sequence[str]) -> str:
    total = hashlib.sha256()
    for path in paths:
        program = shutil.which(path)
        if program:
            with Path(program).open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _translation(mounts: Sequence[Mount]) -> Callable[[str], str]:
    """Replaces places by sources: in one pass, the longest first, and only where a name ends.

    The folder of all places stands for the one that all sources share, below which compiler caches see no difference.
    """
    sources = {mount.place.rstrip("/"): str(mount.source) for mount in mounts}
    if not sources:
        return str
    places = "|".join(re.escape(place) for place in sorted(sources, key=len, reverse=True))
    sources.setdefault(PLACE, os.path.commonpath(sources.values()))
    pattern = re.compile(rf"({places})(?![\w.-])|({PLACE})(?![\w./-])")
    return lambda text: pattern.sub(lambda match: sources[match[0]], text)


def _variables(command: Command, compiler: Compiler, real: Callable[[str], str]) -> dict[str, str | None]:
    """Changes to this process's environment for a command."""
    tools = {
        "CC": shlex.join(compiler.cc),
        "CXX": shlex.join(compiler.cxx),
        "LC_ALL": "C.UTF-8",
        VARIABLE: owner(os.getpid()),
    }
    own = {name: None for name in os.environ if name not in KEPT}
    given = {name: real(value) for name, value in command.env.items()}
    return {**own, **tools, **(_reach() if command.network else {}), **given}


def _require_program(name: str, path: str) -> None:
    # In a sandbox its absence would only be a status.
    if shutil.which(name, path=path) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _sandbox(command: Command, words: Sequence[str]) -> Sandbox:
    """The sandbox of a command that sees its mounts, and the installations of the programs among some words."""
    writable = [mount.source for mount in command.mounts if mount.writable]
    readable = [mount.source for mount in command.mounts if not mount.writable]
    reach = _reach().values() if command.network else ()
    readable += [place for word in (*words, *reach) if (place := _installation(word))]
    return Sandbox(writable=writable, readable=tuple(dict.fromkeys(readable)), network=command.network)


def _installation(word: str) -> Path | None:
    """The folder of the program that a word names, such as a Python of uv's; None for what every sandbox has."""
    path = Path(word)
    if not (path.is_absolute() and path.exists()):
        return None
    real = path.resolve()
    prefix = real.parent.parent
    if any(real.is_relative_to(place) for place in SYSTEM):
        return None
    return prefix if real.parent.name == "bin" and (prefix / "lib").is_dir() else path


def _reach() -> dict[str, str]:
    kept = {name: os.environ[name] for name in (*network.FIND_LINKS, *network.CERTIFICATES) if os.environ.get(name)}
    return {**network.passed_on(), **kept}


def _with_listener(runner: Runner, on_line: Callable[[str], None] | None) -> Runner:
    echo = runner.echo
    if on_line is None or echo is None:
        return replace(runner, echo=on_line or echo)

    def both(line: str) -> None:
        echo(line)
        on_line(line)

    return replace(runner, echo=both)
