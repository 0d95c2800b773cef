"""Parses CMake files: the commands, their positions, and whether an x86-64 Linux host runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

TOKEN = re.compile(
    r"""
      (?P<comment> \#\[(?P<level>=*)\[ .*? \](?P=level)\] | \#[^\n]* )
    | (?P<bracket> \[(?P<depth>=*)\[ .*? \](?P=depth)\] )
    | (?P<quoted> "(?:\\.|[^"\\])*" )
    | (?P<parenthesis> [()] )
    | (?P<word> (?:\\.|[^\s()"\#\\]) (?:\\.|[^\s()"\#\\]|"(?:\\.|[^"\\])*")* )
    """,
    re.DOTALL | re.VERBOSE,
)
BRACKET = re.compile(r"\[(=*)\[\n?(.*)\]\1\]", re.DOTALL)

FOREIGN = re.compile(r"(ASIMD|APPLE_SILICON|MACOSX|POWER\d+|S390|RVV(_\w+)?)_FOUND")
"""Variables of cpu_extension.cmake that no x86-64 Linux host sets."""

HOST = {"CMAKE_SYSTEM_PROCESSOR": "x86_64", "CMAKE_SYSTEM_NAME": "Linux"}
"""Variables that every x86-64 Linux host sets, and how."""

UNARY = frozenset({"DEFINED", "EXISTS", "IS_DIRECTORY", "IS_ABSOLUTE", "TARGET", "COMMAND", "POLICY", "TEST"})

Truth = bool | None
"""None where the text alone does not tell."""


@dataclass(frozen=True, kw_only=True)
class CMakeCommand:
    """A command such as ``set(NAME a b)``.

    Attributes:
        name: in lower case.
        arguments: as written, quotes and brackets included; parentheses among them are arguments of their own.
        start: offset of its first character.
        end: offset behind its closing parenthesis.
        branch: offset of the ``if``, ``elseif`` or ``else`` it stands under; None outside of any.
        reached: whether an x86-64 Linux host runs it; None where the text alone does not tell.
    """

    name: str
    arguments: tuple[str, ...]
    start: int
    end: int
    branch: int | None = None
    reached: Truth = True

    def after(self, keyword: str) -> str | None:
        """The value behind a keyword such as ``GIT_TAG``, without its quotes; None where there is none."""
        pairs = zip(self.arguments, self.arguments[1:], strict=False)
        return next((unquoted(value) for word, value in pairs if word == keyword), None)


@dataclass(frozen=True, kw_only=True)
class _Branch:
    """An open ``if()``: where its current branch starts, whether that is taken, and whether it or an earlier one is."""

    start: int
    taken: Truth
    decided: Truth


def uncommented(text: str) -> str:
    """The text without its comments, bracket comments included."""
    return TOKEN.sub(lambda match: "" if match["comment"] else match[0], text)


def unquoted(argument: str) -> str:
    """The content of a quoted or bracket argument; any other argument as it is."""
    if match := BRACKET.fullmatch(argument):
        return match[2]
    return argument[1:-1] if argument.startswith('"') else argument


def commands(text: str) -> tuple[CMakeCommand, ...]:
    """All commands in order, those of ``if`` blocks included; an unbalanced rest is left out."""
    return tuple(_conditioned(_calls(text)))


def _calls(text: str) -> Iterator[CMakeCommand]:
    name, start, depth = "", 0, 0
    arguments: list[str] = []
    for token in TOKEN.finditer(text):
        if token["comment"]:
            continue
        depth -= token[0] == ")"
        if depth > 0:
            arguments.append(token[0])
        elif depth == 0 and token[0] == ")":
            yield CMakeCommand(name=name.lower(), arguments=tuple(arguments), start=start, end=token.end())
            arguments = []
        elif token["word"]:
            name, start = token[0], token.start()
        depth += token[0] == "("


def _conditioned(calls: Iterator[CMakeCommand]) -> Iterator[CMakeCommand]:
    """The commands with the branch that each stands under."""
    branches: list[_Branch] = []
    for call in calls:
        earlier: Truth = False
        if call.name in ("elseif", "else", "endif") and branches:
            earlier = branches.pop().decided
        reached: Truth = True
        for branch in branches:
            reached = _and(reached, branch.taken)
        yield replace(call, branch=branches[-1].start if branches else None, reached=reached)
        if call.name in ("if", "elseif", "else"):
            truth = True if call.name == "else" else _evaluate(call.arguments)
            taken = _and(_not(earlier), truth)
            branches.append(_Branch(start=call.start, taken=taken, decided=_or(earlier, truth)))


def _evaluate(arguments: Sequence[str]) -> Truth:
    words = list(arguments)
    try:
        truth = _disjunction(words)
    except RecursionError:  # Parentheses within parentheses, deeper than anybody writes them.
        return None
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
        comparison, right = words[0], unquoted(words[1]) if len(words) > 1 else ""
        del words[:2]
        return _compared(HOST.get(word.removeprefix("${").removesuffix("}")), comparison, right)
    return False if FOREIGN.fullmatch(word) else None


def _compared(left: str | None, comparison: str, right: str) -> Truth:
    if left is None or "$" in right.removesuffix("$"):
        return None
    match comparison:
        case "STREQUAL":
            return left == right
        case "MATCHES":
            try:
                return bool(re.search(right, left))
            except re.error:  # CMake's expressions are not quite Python's.
                return None
    return None


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
