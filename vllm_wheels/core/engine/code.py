"""Hashes the code that makes or judges an artifact: syntax trees of all modules it reaches, and their data files.

A key that holds this hash moves with every real change of that code, and with no comment or docstring
(design.md, "One rule per artifact").
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "vllm_wheels"
FILE_NAME = re.compile(r"[\w-]+(\.[\w-]+)+")


@dataclass(frozen=True)
class _Read:
    """What the text of a module says.

    Attributes:
        sha256: of its syntax tree.
        imports: names that it imports, of ours and of others.
        named: its texts that look like names of files.
    """

    sha256: str
    imports: tuple[str, ...]
    named: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> _Read:
        """Reads a module."""
        tree = ast.parse(text)
        imports = {name for name in _imported(tree) if name.startswith(PACKAGE)}
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = filter(FILE_NAME.fullmatch, texts)
        sha256 = hashlib.sha256(normalised(tree).encode()).hexdigest()
        return cls(sha256=sha256, imports=tuple(sorted(imports)), named=tuple(sorted(named)))


@dataclass(frozen=True, eq=False)
class Code:
    """The modules and data files below a package's folder.

    Attributes:
        changed: texts in place of those on disk, by path; for tests of what a change would move.
        apart: names of data files that are declared as inputs one by one, and so are left out here.
    """

    root: Path
    changed: Mapping[Path, str] = field(default_factory=dict)
    apart: frozenset[str] = frozenset({"variants.toml"})
    _known: dict[Path, _Read] = field(default_factory=dict)
    _texts: dict[Path, str] = field(default_factory=dict)
    _digests: dict[tuple[str, ...], str] = field(default_factory=dict)

    def digest(self, roots: tuple[str, ...]) -> str:
        """SHA-256 over everything that some modules reach; a package stands for all modules below it."""
        if roots not in self._digests:
            lines = [f"{path.relative_to(self.root)} {self._hash(path)}\n" for path in self.reached(roots)]
            self._digests[roots] = hashlib.sha256("".join(lines).encode()).hexdigest()
        return self._digests[roots]

    def reached(self, roots: Iterable[str]) -> list[Path]:
        """Files of the modules that are imported from the roots, directly or not, and of the data that they name."""
        modules, found = self.modules(), set[str]()
        todo = [name for root in roots for name in modules if name == root or name.startswith(f"{root}.")]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                parents = [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
                todo.extend(each for each in (*parents, *self._read(modules[name]).imports) if each in modules)
        paths = {modules[name] for name in found}
        return sorted(paths | {data for path in paths for data in self._data(path)})

    def modules(self) -> Mapping[str, Path]:
        """Every module below the package, by name."""
        return _names(self.root)

    def _data(self, path: Path) -> set[Path]:
        files = [file for file in _data_files(path.parent) if file.name not in self.apart]
        todo, found = [file for file in files if file.name in self._read(path).named], set[Path]()
        while todo:
            file = todo.pop()
            if file not in found:
                found.add(file)
                # A table may name further files, as images.toml names recipes of images.
                text = self._text(file)
                todo.extend(other for other in files if f'"{other.name}"' in text)
        return found

    def _hash(self, path: Path) -> str:
        if path.suffix == ".py":
            return self._read(path).sha256
        return hashlib.sha256(self._text(path).encode()).hexdigest()

    def _read(self, path: Path) -> _Read:
        if path not in self._known:
            text = self.changed.get(path)
            self._known[path] = _read(path) if text is None else _Read.of(text)
        return self._known[path]

    def _text(self, path: Path) -> str:
        if path not in self._texts:
            text = self.changed.get(path)
            self._texts[path] = path.read_text("utf-8") if text is None else text
        return self._texts[path]


@cache
def installed() -> Code:
    """The code of this installation, read once for a process."""
    return Code(Path(__file__).resolve().parents[2])


def files_on_disk() -> str:
    """Hash of when our own files were written, which moves with every update of this installation."""
    root = Path(__file__).resolve().parents[2]
    files = ((path, path.stat()) for path in sorted((root / PACKAGE).rglob("*.py")))
    text = "".join(f"{path} {found.st_mtime_ns} {found.st_size}\n" for path, found in files)
    return hashlib.sha256(text.encode()).hexdigest()


def normalised(tree: ast.Module) -> str:
    """The syntax tree as text, without docstrings; comments, blank lines and positions are not in it anyway.

    Empty fields are left out, as newer Pythons have more of them: machines with different ones share a store.
    """
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return _plain(tree)


def _plain(value: object) -> str:
    if isinstance(value, ast.AST):
        fields = (f"{name}={_plain(each)}" for name, each in ast.iter_fields(value) if each not in (None, []))
        return f"{type(value).__name__}({','.join(fields)})"
    return f"[{','.join(map(_plain, value))}]" if isinstance(value, list) else repr(value)


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
def _names(root: Path) -> Mapping[str, Path]:
    def name(path: Path) -> str:
        return ".".join((PACKAGE, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")

    return {name(path): path for path in sorted(root.rglob("*.py"))}


@cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    """Files below a folder that a module can name: data, scripts, and modules that go into a wheel as text."""
    return tuple(path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc")


def _read(path: Path) -> _Read:
    """A module as it was read by an earlier process, unless the file was written since."""
    found, kept = path.stat(), _kept()
    state = [found.st_ino, found.st_size, found.st_ctime_ns]
    known = kept.get(str(path))
    if known and known[0] == state:
        return _Read(*known[1:])
    fresh = _Read.of(path.read_text("utf-8"))
    kept[str(path)] = [state, *astuple(fresh)]
    return fresh


@cache
def _kept() -> dict[str, Any]:
    """What processes of this user read, by path; written at the end of this one. Without such a file all is read."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vllm-wheels"
    # Another version of this module, or of Python, may read trees otherwise.
    version = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()[:12]
    file, known = folder / f"code-{version}.json", dict[str, Any]()
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text("utf-8"))
    atexit.register(_keep, file, known, dict(known))
    return known


def _keep(file: Path, known: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    if known == before:
        return
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({path: read for path, read in known.items() if Path(path).exists()}), "utf-8")
        temporary.replace(file)
