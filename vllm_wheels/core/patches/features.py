"""What users ask for by name and a wheel without some operator cannot do; features.toml says which."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FEATURES = "features.toml"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Something that users ask for by name, and an operator without which it does not run."""

    words: str
    operator: str


@cache
def features() -> tuple[Feature, ...]:
    """All features, in the order in which texts name them."""
    table = tomllib.loads(files(__package__).joinpath(FEATURES).read_text("utf-8"))
    return tuple(Feature(**entry) for entry in table["feature"])


def lacking_features(lacking: Mapping[str, str]) -> dict[str, str]:
    """Features that do not run for want of an operator, by their words, each with the distribution that has it."""
    return {each.words: lacking[each.operator] for each in features() if lacking.get(each.operator)}
