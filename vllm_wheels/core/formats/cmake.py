"""Reads CMake text as far as a source tree's pins need it: commands, and whether an x86-64 Linux host reaches them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TOKEN = re.compile(r'#[^\n]*|"((?:\\.|[^"\\])*)"|([()])|([^\s()"#]+)')

FOREIGN = re.compile(r"(ASIMD|APPLE_SILICON|MACOSX|POWER\d+|S390|RVV(_\w+)?)_FOUND")
"""Variables of cpu_extension.cmake that no x86-64 Linux host sets."""

UNARY = frozenset({"DEFINED", "EXISTS", "IS_DIRECTORY", "IS_ABSOLUTE", "TARGET", "COMMAND", "POLICY", "TEST"})

Truth = bool | None
"""None where the text alone does not tell."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of a CMake file.

    Attributes:
        name: in lower case.
        arguments: unquoted; parentheses among them are arguments of their own.
        reached: does an x86-64 Linux host come by; None where the text alone does not tell.
    """

    name: str
    arguments: tuple[str, ...]
    reached: Truth

    def after(self, keyword: str) -> str | None:
        """The argument that follows a keyword such as ``GIT_TAG``; None where there is none."""
        pairs = zip(self.arguments, self.arguments[1:], strict=False)
        return next((value for word, value in pairs if word == keyword), None)


def uncommented(text: str) -> str:
    """The text without its comments."""
    return TOKEN.sub(lambda match: "" if match[0].startswith("#") else match[0], text)


def commands(text: str) -> Iterator[Command]:
    """All commands of a CMake text, in order, each with whether an x86-64 Linux host reaches it."""
    # Each open if() keeps whether its current branch is taken, and whether an earlier one was.
    branches: list[tuple[Truth, Truth]] = []
    for name, arguments in _plain_commands(text):
        match name:
            case "if":
                truth = _evaluate(arguments)
                branches.append((truth, truth))
            case "elseif" | "else" if branches:
                earlier = branches[-1][1]
                truth = _evaluate(arguments) if name == "elseif" else True
                branches[-1] = (_and(_not(earlier), truth), _or(earlier, truth))
            case "endif" if branches:
                branches.pop()
            case _:
                reached: Truth = True
                for taken, _ in branches:
                    reached = _and(reached, taken)
                yield Command(name=name, arguments=arguments, reached=reached)


def _plain_commands(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    name, depth = "", 0
    arguments: list[str] = []
    for match in TOKEN.finditer(text):
        quoted, bracket, word = match.groups()
        if bracket == "(":
            depth += 1
        if bracket == ")":
            depth -= 1
        if depth == 0 and bracket == ")":
            yield name.lower(), tuple(arguments)
            arguments = []
        elif depth == 0 and word:
            name = word
        elif depth > 1 or (depth == 1 and bracket != "("):
            value = next((part for part in (quoted, bracket, word) if part is not None), None)
            arguments.extend([] if value is None else [value])


def _evaluate(arguments: Sequence[str]) -> Truth:
    words = list(arguments)
    truth = _disjunction(words)
    return None if words else truth


def _disjunction(words: list[str]) -> Truth:
    truth = _conjunction(words)
    while words[:1] == ["OR"]:
        del words[0]
        truth = _or(truth, _conjunction(words))
    return truth


def _conjunction(words: list[str]) -> Truth:
    truth = _negation(words)
    while words[:1] == ["AND"]:
        del words[0]
        truth = _and(truth, _negation(words))
    return truth


def _negation(words: list[str]) -> Truth:
    if words[:1] == ["NOT"]:
        del words[0]
        return _not(_negation(words))
    return _operand(words)


def _operand(words: list[str]) -> Truth:
    if not words:
        return None
    word = words.pop(0)
    if word == "(":
        truth = _disjunction(words)
        del words[:1]
        return truth
    if word in UNARY and not _ends(words):
        del words[0]
        return None
    if not _ends(words):  # A comparison: an operator and its right side.
        del words[:2]
        return None
    return False if FOREIGN.fullmatch(word) else None


def _ends(words: list[str]) -> bool:
    return not words or words[0] in {"AND", "OR", ")"}


def _not(one: Truth) -> Truth:
    return None if one is None else not one


def _and(one: Truth, other: Truth) -> Truth:
    if one is False or other is False:
        return False
    return True if one and other else None


def _or(one: Truth, other: Truth) -> Truth:
    return _not(_and(_not(one), _not(other)))
