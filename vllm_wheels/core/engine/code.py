"""Hashes the code that makes or judges an artifact: syntax trees of all modules it reaches, and their data files.

A key that holds this hash moves with every real change of that code, and with no comment or docstring
(design.md, "One rule per artifact").
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "vllm_wheels"


@dataclass(frozen=True, eq=False)
class Code:
    """The modules and data files below a package's folder.

    Attributes:
        root: folder of the package.
        package: its name.
        changed: texts in place of those on disk, by path; for tests of what a change would move.
        apart: names of data files that are declared as inputs one by one, and so are left out here.
    """

    root: Path
    package: str = PACKAGE
    changed: Mapping[Path, str] = field(default_factory=dict)
    apart: frozenset[str] = frozenset({"variants.toml"})
    _modules: dict[str, _Module] = field(default_factory=dict)
    _hashes: dict[Path, str] = field(default_factory=dict)

    def digest(self, roots: Iterable[str]) -> str:
        """SHA-256 over everything that some modules reach.

        Args:
            roots: names of modules and packages; a package stands for all modules below it.
        """
        total = hashlib.sha256()
        for path in self.reached(roots):
            total.update(f"{path.relative_to(self.root)} {self._hash(path)}\n".encode())
        return total.hexdigest()

    def reached(self, roots: Iterable[str]) -> list[Path]:
        """Files of the modules that are imported from the roots, directly or not, and of the data that they name."""
        found: set[str] = set()
        todo = [name for root in roots for name in self._below(root)]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo.extend(self._module(name).imports)
        paths = {self._module(name).path for name in found}
        return sorted(paths | {data for name in found for data in self._module(name).data})

    def modules(self) -> dict[str, Path]:
        """Every module below the package, by name."""
        return {self._name(path): path for path in sorted(self.root.rglob("*.py"))}

    def _below(self, name: str) -> list[str]:
        return [each for each in _names(self.root, self.package) if each == name or each.startswith(f"{name}.")]

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join((self.package, *parts)).removesuffix(".__init__")

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            path = _names(self.root, self.package)[name]
            self._modules[name] = self._read(path, name)
        return self._modules[name]

    def _read(self, path: Path, name: str) -> _Module:
        tree = ast.parse(self._text(path))
        self._hashes[path] = hashlib.sha256(normalised(tree).encode()).hexdigest()
        known = _names(self.root, self.package)
        imports = {found for found in _imported(tree) if found in known}
        parents = {name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)}
        return _Module(path, frozenset(imports | (parents & known.keys())), frozenset(self._data(path, tree)))

    def _data(self, path: Path, tree: ast.Module) -> Iterator[Path]:
        named = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        todo = [file for file in _data_files(path.parent) if file.name in named]
        seen: set[Path] = set()
        while todo:
            file = todo.pop()
            if file in seen or file.name in self.apart:
                continue
            seen.add(file)
            yield file
            # A table may name further files, as images.toml names recipes of images.
            text = self._text(file)
            todo.extend(other for other in _data_files(path.parent) if f'"{other.name}"' in text)

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            text = self._text(path)
            meant = normalised(ast.parse(text)) if path.suffix == ".py" else text
            self._hashes[path] = hashlib.sha256(meant.encode()).hexdigest()
        return self._hashes[path]

    def _text(self, path: Path) -> str:
        return self.changed.get(path) or path.read_text("utf-8")


@dataclass(frozen=True)
class _Module:
    path: Path
    imports: frozenset[str]
    data: frozenset[Path]


@cache
def installed() -> Code:
    """The code of this installation, read once for a process."""
    return Code(Path(__file__).resolve().parents[2])


def normalised(tree: ast.Module) -> str:
    """The syntax tree as text, without docstrings; comments, blank lines and positions are not in it anyway."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return ast.dump(tree, annotate_fields=False)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported(tree: ast.Module) -> Iterator[str]:
    only_for_types = {id(inner) for node in ast.walk(tree) if _is_for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def _names(root: Path, package: str) -> dict[str, Path]:
    def name(path: Path) -> str:
        return ".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")

    return {name(path): path for path in sorted(root.rglob("*.py"))}


@cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    """Files below a folder that a module can name: data, scripts, and modules that go into a wheel as text."""
    return tuple(path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc")
