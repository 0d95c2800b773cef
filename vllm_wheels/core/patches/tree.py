"""A copy-on-write view of a release's source: read from disk, changed in memory, never written back."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path

from vllm_wheels.core.errors import PatchError

PACKAGE = "vllm"


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A replacement of a text that occurs exactly once in a file."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Tree:
    """An unpacked release and the files that patches changed.

    Attributes:
        changed: new texts by path relative to ``root``, also of files that the release does not have.
        notices: what the user must be told of what patches met, each line once.
    """

    root: Path
    release: str
    changed: dict[str, str] = field(default_factory=dict)
    notices: dict[str, None] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """Whether the release has the file, or a patch added it."""
        return path in self.changed or (self.root / path).is_file()

    def original(self, path: str) -> str:
        """Text of the file as the release has it, with its own line ends; empty where it has none."""
        file = self.root / path
        try:
            return file.read_bytes().decode() if file.is_file() else ""
        except UnicodeDecodeError as error:
            raise self.misfit(path, why="it is not UTF-8") from error

    @cached_property
    def _code(self) -> dict[str, bytes]:
        # Several patches look through all of it, some 2,600 files: they are read once.
        files = sorted((self.root / PACKAGE).rglob("*.py"))
        return {file.relative_to(self.root).as_posix(): file.read_bytes() for file in files}

    def code_with(self, *words: str) -> Iterator[str]:
        """Paths of the Python files of the release's package in whose text, with the changes so far, is a word."""
        wanted = [word.encode() for word in words]
        for path, original in self._code.items():
            content = self.changed[path].encode() if path in self.changed else original
            if any(word in content for word in wanted):
                yield path

    def text(self, path: str) -> str:
        """Text of the file with the changes so far; PatchError where the release has no such file."""
        if path in self.changed:
            return self.changed[path]
        if not self.has(path):
            raise self.misfit(path, why="the release has no such file")
        return self.original(path)

    def module(self, path: str) -> ast.Module:
        """Syntax tree of a Python file with the changes so far; PatchError where this Python cannot parse it."""
        try:
            return ast.parse(self.text(path))
        except SyntaxError as error:
            why = f"its line {error.lineno} is no Python {sys.version_info.major}.{sys.version_info.minor}: {error.msg}"
        except (ValueError, RecursionError, MemoryError) as error:
            why = f"it is no Python: {error or type(error).__name__}"
        raise self.misfit(path, why=why, remedy="run vllm-wheels with a newer Python, or build another release")

    def lines(self, path: str) -> list[str]:
        """Lines of the file with their ends, as Python's parser counts them: form feeds and the like divide none."""
        return StringIO(self.text(path), newline="\n").readlines()

    def notice(self, text: str) -> None:
        """Notes what the user must be told."""
        self.notices[text] = None

    def write(self, path: str, text: str) -> None:
        """Sets the file's new text."""
        self.changed[path] = text

    def replace(self, edit: Edit) -> None:
        """Applies an edit; PatchError where the old text does not occur exactly once."""
        text = self.text(edit.path)
        count = text.count(edit.old)
        if count != 1:
            raise self.missing(edit.path, edit.old, found=count)
        self.write(edit.path, text.replace(edit.old, edit.new))

    def missing(self, path: str, anchor: str, *, found: int = 0) -> PatchError:
        """The error of a patch whose anchor does not occur exactly once."""
        line = " ".join(anchor.split())
        times = "" if not found else f", found it {found} times"
        return self.misfit(path, why=f"{path} is not what the patch knows (looked for {line!r} once{times})")

    def misfit(
        self, path: str, *, why: str, remedy: str = "build a release that is supported (vllm-wheels release list)"
    ) -> PatchError:
        """The error of a file that a patch cannot deal with."""
        return PatchError(f"vLLM {self.release} cannot be patched in {path}", why=why, remedy=remedy)
