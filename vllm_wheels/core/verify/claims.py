"""Reads from a wheel what it says about its instructions: its name, its summary, sentences of its description."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

TABLE = "claims.toml"
NAME, SUMMARY, DESCRIPTION = "its name", "its summary", "its description"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a wheel says about its instructions.

    Attributes:
        said: words such as ``AVX512`` that it says it has, each with where it says so.
        denied: words that it says it has not, each with where.
        chosen: it says that what is used is chosen by the CPU at run time, so that nothing inside is too much.
    """

    said: Mapping[str, str]
    denied: Mapping[str, str]
    chosen: bool = False

    def __bool__(self) -> bool:
        return bool(self.said or self.denied or self.chosen)

    @property
    def text(self) -> str:
        """The claim in a few words, as a sentence goes on: "says ..."."""
        words = [f"{' + '.join(self.said)}"] if self.said else []
        words += [f"no {', '.join(self.denied)}"] if self.denied else []
        words += ["that what is used is chosen at run time"] if self.chosen else []
        return ", ".join(words)

    def broken(self, features: Mapping[str, int]) -> list[str]:
        """Words that are said and of which there is no instruction."""
        table = _table()["words"]
        return [word for word in self.said if not any(features.get(name) for name in table[word]["means"])]

    def too_much(self, feature: str) -> bool:
        """Whether instructions of a feature are more than the wheel says; one that says nothing says too little."""
        family = next((each for each in _table()["family"] if fnmatchcase(feature, each["pattern"])), None)
        if family is None or self.chosen:
            return False
        word = family["word"]
        implied = {other for said in self.said for other in _table()["words"][said].get("implies", ())}
        return word in self.denied or (bool(self.said) and word not in {*self.said, *implied})


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(TABLE).read_text("utf-8"))


def claim_of(distribution: str, summary: str, description: str) -> Claim:
    """The claim of a wheel; what its summary says counts more than its description, and more than its name."""
    said: dict[str, str] = {}
    denied: dict[str, str] = {}
    for where, text in _texts(distribution, summary, description):
        for word, is_said in _words(text):
            if word not in said and word not in denied:
                (said if is_said else denied)[word] = where
    texts = [text for where, text in _texts(distribution, summary, description) if where != NAME]
    chosen = any(re.search(_table()["text"]["chosen"], text) for text in texts)
    return Claim(said=_in_order(said), denied=_in_order(denied), chosen=chosen)


def _in_order(words: Mapping[str, str]) -> dict[str, str]:
    return {word: words[word] for word in _table()["words"] if word in words}


def _texts(distribution: str, summary: str, description: str) -> Iterator[tuple[str, str]]:
    yield SUMMARY, summary
    for statement in _table()["text"]["statements"]:
        if found := re.search(statement, description):
            yield DESCRIPTION, found[1]
    yield NAME, distribution


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Words in a text, and whether they are said or denied: a denial holds to the end of its clause."""
    patterns = {word: entry["pattern"] for word, entry in _table()["words"].items()}
    for clause in re.split(r"[.;,()](?!\d)|\bbut\b", text):
        denial = re.search(_table()["text"]["denial"], clause)
        for word, pattern in patterns.items():
            for found in re.finditer(rf"(?i)(?<![A-Za-z])(?:{pattern})(?![A-Za-z0-9])", _apart(clause)):
                yield word, denial is None or found.start() < denial.start()


def _apart(clause: str) -> str:
    """The clause with what is written together, as in a name, taken apart: ``avx512bf16`` is AVX512 and BF16."""
    return re.sub(r"(?i)(avx512|amx)(vnni|bf16)", r"\1 \2", clause)
