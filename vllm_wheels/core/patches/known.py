"""What the patches know of a release's source, as data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

TABLE = "known.toml"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compile flags: of all extensions in all releases, in some, of no variant's instruction sets, beside ``_C``."""

    always: tuple[str, ...]
    common: tuple[str, ...]
    left_out: tuple[str, ...]
    beside: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Extensions:
    """Extensions, by the family that has them, and conditions under which they are defined otherwise."""

    x86: tuple[str, ...]
    others: tuple[str, ...]
    conditions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Known:
    """The whole table; licence texts are hashes by SPDX identifier."""

    licences: dict[str, tuple[str, ...]]
    flags: Flags
    extensions: Extensions


@cache
def known() -> Known:
    """The table ``known.toml``."""
    table = tomllib.loads(files(__package__).joinpath(TABLE).read_text("utf-8"))
    return Known(
        licences={name: tuple(hashes) for name, hashes in table["licences"].items()},
        flags=Flags(**{name: tuple(values) for name, values in table["flags"].items()}),
        extensions=Extensions(**{name: tuple(values) for name, values in table["extensions"].items()}),
    )
