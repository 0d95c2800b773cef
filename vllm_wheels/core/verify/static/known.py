"""Reads known.toml: libraries, secrets, commands and packages that the checks know by name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

TABLE = "known.toml"


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library that may lie in a wheel; ``refused`` says why it may not."""

    names: tuple[str, ...]  # patterns
    licence: str
    refused: str = ""


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(TABLE).read_text("utf-8"))


@cache
def libraries() -> tuple[Library, ...]:
    """All libraries that are known."""
    return tuple(Library(**{**entry, "names": tuple(entry["names"])}) for entry in _table()["library"])


def library(names: Iterable[str]) -> Library | None:
    """The library that one of the names belongs to; None for one that is not known."""
    wanted = [name for name in names if name]
    return next((each for each in libraries() if any(fits(name, each.names) for name in wanted)), None)


@cache
def patterns(section: str, key: str) -> tuple[str, ...]:
    """A list of patterns of the table."""
    return tuple(_table()[section][key])


def fits(name: str, known: Iterable[str]) -> bool:
    """Whether a name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in known)
