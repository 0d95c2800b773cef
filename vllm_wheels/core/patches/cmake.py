"""Reads CMake text: its commands, where each stands, and under which condition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TOKEN = re.compile(r'#\[(=*)\[.*?\]\1\]|#[^\n]*|"(?:\\.|[^"\\])*"|[A-Za-z_]\w*|[()]|\s+|.', re.DOTALL)
ARGUMENT = re.compile(r'#[^\n]*|"(?:\\.|[^"\\])*"|[^\s()"#]+')


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command such as ``set(NAME a b)``.

    Attributes:
        name: in lower case.
        arguments: without comments; quoted ones keep their quotes.
        start: offset of its first character.
        end: offset behind its closing parenthesis.
        branch: offset of the ``if``, ``elseif`` or ``else`` it stands under; None outside of any.
    """

    name: str
    arguments: tuple[str, ...]
    start: int
    end: int
    branch: int | None


def commands(text: str) -> tuple[Command, ...]:
    """All commands in order; an unbalanced rest is left out."""
    found: list[Command] = []
    open_branches: list[int] = []
    for name, start, opening, end in _calls(text):
        if name in ("else", "elseif", "endif") and open_branches:
            open_branches.pop()
        branch = open_branches[-1] if open_branches else None
        arguments = tuple(part for part in ARGUMENT.findall(text[opening + 1 : end - 1]) if not part.startswith("#"))
        found.append(Command(name=name, arguments=arguments, start=start, end=end, branch=branch))
        if name in ("if", "else", "elseif"):
            open_branches.append(start)
    return tuple(found)


def _calls(text: str) -> Iterator[tuple[str, int, int, int]]:
    depth, name, start, opening = 0, "", 0, 0
    for token in TOKEN.finditer(text):
        word = token[0]
        if word == "(":
            opening = token.start() if depth == 0 else opening
            depth += 1
        elif word == ")":
            depth -= 1
            if depth == 0:
                yield name, start, opening, token.end()
        elif depth == 0 and (word[0].isalpha() or word[0] == "_"):
            name, start = word.lower(), token.start()
