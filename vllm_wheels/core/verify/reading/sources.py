"""The Python files of a package: parsed when they are asked for, with an index of the names that each uses."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host import limits
from vllm_wheels.core.patches.guard_files import GUARD

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.ClassDef | ast.Module

OTHER_PLATFORMS = frozenset({"nvidia", "amd", "xpu", "rocm", "cuda", "tpu"})
"""Folders of code that vLLM imports on another platform only: its models are laid out so ("hardware-isolated")."""


ASCII = 128
NAMED = re.compile(r"[\w.:]+")
DIVIDED = re.compile(r"[.:]")
WORDS = bytes(code if chr(code).isalnum() or code == ord("_") or code >= ASCII else ord(" ") for code in range(256))
"""A table that leaves nothing of a text but its words; to match each takes half as long again."""

DEFINED = re.compile(rb"^[ \t]*(?:async +)?(?:def|class) +(\w+)", re.MULTILINE)

SIGNS = frozenset({"ctx", "op", "ops"})
"""Fields that hold no places in the code."""


def _lists() -> dict[str, list[Any]]:
    return defaultdict(list)


@dataclass(frozen=True, eq=False)
class Source:
    """A parsed file; nodes are told apart by their identity.

    Attributes:
        parents: the node around each node.
        used: where a name is read: as a name, behind a dot, or as the last part of a string such as ``vllm.a.Name``.
        stored: where a name or an attribute of that name is set.
        defined: functions, methods and classes by name.
        importing: import statements.
    """

    path: str
    module: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict, repr=False)
    used: dict[str, list[ast.expr]] = field(default_factory=_lists, repr=False)
    stored: dict[str, list[ast.expr]] = field(default_factory=_lists, repr=False)
    defined: dict[str, list[Function | ast.ClassDef]] = field(default_factory=_lists, repr=False)
    importing: list[ast.Import | ast.ImportFrom] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Indexes the file: everything else asks for it again and again."""
        nodes: list[ast.AST] = [self.module]
        for node in nodes:
            self._enter(node)
            for name in node._fields:
                found = getattr(node, name) if name not in SIGNS else None
                for inner in found if isinstance(found, list) else (found,):
                    if isinstance(inner, ast.AST):
                        self.parents[inner] = node
                        nodes.append(inner)

    def _enter(self, node: ast.AST) -> None:
        # No class patterns, which take three times as long: there are millions of nodes.
        if isinstance(node, ast.Name):
            self._enter_name(node.id, node)
        elif isinstance(node, ast.Attribute):
            self._enter_name(node.attr, node)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and NAMED.fullmatch(node.value):
                self.used[DIVIDED.split(node.value)[-1]].append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.defined[node.name].append(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.importing.append(node)

    def _enter_name(self, name: str, node: ast.Name | ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self.used[name].append(node)
        elif isinstance(node.ctx, ast.Store):
            self.stored[name].append(node)

    @cached_property
    def imports(self) -> dict[str, str]:
        """What the names that imports set stand for, such as ``ops`` for ``vllm._custom_ops``."""
        package = self.path.removesuffix(".py").removesuffix("/__init__").split("/")
        if not self.path.endswith("/__init__.py"):
            package = package[:-1]
        found: dict[str, str] = {}
        for node in self.importing:
            if isinstance(node, ast.Import):
                found |= {each.asname: each.name for each in node.names if each.asname}
            else:
                base = package[: len(package) - node.level + 1] if node.level else []
                origin = ".".join([*base, *([node.module] if node.module else [])])
                found |= {each.asname or each.name: f"{origin}.{each.name}" for each in node.names}
        return found

    def scope(self, node: ast.AST) -> Scope:
        """The function, class or module around a node."""
        while not isinstance(node, ast.Module):
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                return node
        return node

    def place(self, node: ast.AST) -> str:
        """File, line and the definition around a node, for people."""
        names: list[str] = []
        around: Scope | ast.AST = node if isinstance(node, ast.ClassDef | Function) else self.scope(node)
        while not isinstance(around, ast.Module):
            names.insert(0, getattr(around, "name", ""))
            around = self.scope(around)
        return f"{self.path}:{getattr(node, 'lineno', 1)}" + (f" ({'.'.join(names)})" if names else "")


@dataclass(frozen=True)
class Package:
    """The Python files of a wheel, without those of other platforms and the guard, which only names operators.

    Attributes:
        root: folder that holds the package.
        name: of the package.
    """

    root: Path
    name: str = "vllm"
    _parsed: dict[str, Source] = field(default_factory=dict, repr=False)

    @cached_property
    def texts(self) -> dict[str, bytes]:
        """Content of the files by path below the root."""
        files = sorted((self.root / self.name).rglob("*.py"))
        paths = {file.relative_to(self.root).as_posix(): file for file in files}
        left_out = {path for path in paths if path == GUARD or OTHER_PLATFORMS & set(path.split("/"))}
        _require_few(sum(file.stat().st_size for file in files), limits.WHEEL_PYTHON_BYTES, "Python code")
        return {path: file.read_bytes() for path, file in paths.items() if path not in left_out}

    @cached_property
    def defining(self) -> dict[str, list[str]]:
        """Paths of the files that define functions, methods and classes of a name, once for each."""
        found: dict[str, list[str]] = defaultdict(list)
        for path, text in self.texts.items():
            for name in DEFINED.findall(text):
                found[name.decode()].append(path)
        return found

    def source(self, path: str) -> Source:
        """A parsed file; CannotVerifyError where it is no Python."""
        if path not in self._parsed:
            parsed = sum(len(self.texts[known]) for known in (*self._parsed, path))
            _require_few(len(self.texts[path]), limits.WHEEL_SOURCE_BYTES, "Python code in a file")
            _require_few(parsed, limits.WHEEL_TREES_BYTES, "Python code that uses operators")
            try:
                self._parsed[path] = Source(path, ast.parse(self.texts[path]))
            except (SyntaxError, ValueError, RecursionError) as error:
                what = f"{path} cannot be read as Python"
                raise CannotVerifyError(what, why=str(error), remedy="build the wheel anew") from error
        return self._parsed[path]

    @cached_property
    def _words(self) -> dict[bytes, list[str]]:
        """Paths of the files in which each word stands."""
        found: dict[bytes, list[str]] = defaultdict(list)
        for path, text in self.texts.items():
            for word in set(text.translate(WORDS).split()):
                found[word].append(path)
        return found

    def holding(self, word: str) -> tuple[str, ...]:
        """Paths of the files in which a word stands."""
        return tuple(self._words.get(word.encode(), ()))

    def sources(self, word: str) -> Iterator[Source]:
        """The files in which a word stands, one after the other: first those that are parsed, then the shortest.

        Who looks for one use among many so finds it with the least parsing.
        """
        paths = self.holding(word)
        return map(self.source, sorted(paths, key=lambda path: (path not in self._parsed, len(self.texts[path]))))

    def uses(self, name: str) -> Iterator[tuple[Source, ast.expr]]:
        """Everywhere that a name is read."""
        for source in self.sources(name):
            for node in source.used.get(name, ()):
                yield source, node

    def definitions(self, name: str) -> Iterator[tuple[Source, Function | ast.ClassDef]]:
        """Every function, method and class of a name."""
        for path in dict.fromkeys(self.defining.get(name, ())):
            source = self.source(path)
            for node in source.defined.get(name, ()):
                yield source, node

    def module(self, dotted: str) -> Source | None:
        """The file of a module; None for one that is not in the package."""
        path = dotted.replace(".", "/")
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if candidate in self.texts:
                return self.source(candidate)
        return None


def _require_few(found: int, limit: int, what: str) -> None:
    """Refuses what would take too much memory."""
    if found > limit:
        refused = "the operators are not looked for"
        why = f"it has more than {limit // limits.MIB} MiB of {what}, which no wheel of vLLM has"
        raise CannotVerifyError(refused, why=why, remedy="look at the files themselves")
