"""Holds the commands that were really started against those that a plan showed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.host.sandbox import BUBBLEWRAP
from vllm_wheels.core.verify.test_run import CLEAN

UNKNOWN = re.compile(r"\{[a-z_ ]+\}|<[^<>]*not made yet>")
"""What a plan has in place of a word, or a part of one, that nobody knows yet."""

SEVERAL = {"{index}", "{extensions}", "{mirror}"}
"""Stand for any number of words."""

LAST_LIMIT = "--core=0"
"""The last of a sandbox's own words, but for the two dashes that the command follows."""


@dataclass(frozen=True)
class Started:
    """A command that was started, with the variables that it was given."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class WatchedRunner(Runner):
    """Keeps in mind what it starts."""

    def __init__(self, **more) -> None:
        super().__init__(**more)
        object.__setattr__(self, "started", [])

    def run(self, argv: Sequence[str], **more) -> Finished:
        """Runs the command and remembers it."""
        self.started.append(started(argv, more.get("env")))
        return super().run(argv, **more)


def started(argv: Iterable[str], env: Mapping[str, str | None] | None) -> Started:
    """What a runner or a builder was asked for; variables that are taken away are not among those given.

    Of a command in a sandbox, the command, with the variables that not every one is given there.
    """
    words, given = tuple(argv), {name: value for name, value in (env or {}).items() if value is not None}
    if words[0] == BUBBLEWRAP:
        words = words[words.index(LAST_LIMIT) + 2 :]
    if words[0] == "/usr/bin/env":
        number = next(place for place, word in enumerate(words) if place and "=" not in word)
        named = dict(word.split("=", 1) for word in words[1:number])
        words, given = words[number:], {name: named[name] for name in named.keys() - {*CLEAN, "HOME"}}
    return Started(words, given)


def same(shown: Invocation, really: Started) -> bool:
    """Is this the command of the plan, whatever stands in place of the words that were unknown?"""
    words = "".join(r"(?:[^\0]*\0)*" if word in SEVERAL else f"{_pattern(word)}\0" for word in shown.argv)
    if not re.fullmatch(words, "".join(f"{word}\0" for word in really.argv), re.DOTALL):
        return False
    return shown.environment.keys() == really.env.keys() and all(
        re.fullmatch(_pattern(value), really.env[name], re.DOTALL) for name, value in shown.environment.items()
    )


def unlike(shown: Sequence[Invocation], really: Sequence[Started]) -> list[Invocation | Started]:
    """Commands that were started and not shown, or shown and not started; those on a condition may be left out.

    Their order does not count, for static checks run side by side.
    """
    rest = list(really)
    missing = []
    for command in shown:
        if found := next((each for each in rest if same(command, each)), None):
            rest.remove(found)
        elif command.condition is None:
            missing.append(command)
    return [*missing, *rest]


def _pattern(text: str) -> str:
    parts = UNKNOWN.split(text)
    return r"[^\0]+".join(re.escape(part) for part in parts)
