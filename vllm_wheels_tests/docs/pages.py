"""The documentation as tests read it: pages with their headings, links and code blocks, parsed as CommonMark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A code block: its language as written (empty without one), and its text."""

    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        return self.path.relative_to(ROOT).as_posix() if self.path.is_relative_to(ROOT) else self.path.name

    @cached_property
    def text(self) -> str:
        """The file as written."""
        return self.path.read_text("utf-8")

    @cached_property
    def tokens(self) -> list[Token]:
        """The file as CommonMark understands it."""
        return PARSER.parse(self.text)

    @cached_property
    def headings(self) -> list[tuple[int, str]]:
        """Level and text of each heading."""
        return [
            (int(token.tag[1]), _plain(self.tokens[position + 1]))
            for position, token in enumerate(self.tokens)
            if token.type == "heading_open"
        ]

    @cached_property
    def anchors(self) -> set[str]:
        """What can stand behind # in a link to this page, by GitHub's rule."""
        return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for _, text in self.headings}

    @property
    def blocks(self) -> list[Block]:
        """Fenced and indented code blocks, in order."""
        return _blocks(self.tokens)

    def below(self, heading: str) -> list[Block]:
        """The code blocks of one section."""
        return _blocks(PARSER.parse(self.section(heading)))

    def _inline(self, kind: str) -> Iterator[Token]:
        for token in self.tokens:
            yield from (child for child in token.children or () if child.type == kind)

    @property
    def spans(self) -> list[str]:
        """Code inside sentences."""
        return [token.content for token in self._inline("code_inline")]

    @property
    def links(self) -> list[str]:
        """Targets of links and images."""
        targets = [token.attrGet("href") for token in self._inline("link_open")]
        return [str(target) for target in [*targets, *(token.attrGet("src") for token in self._inline("image"))]]

    def section(self, heading: str) -> str:
        """The text below a heading, up to the next one of its level or above."""
        lines = self.text.splitlines()
        places = [token.map[1] for token in self.tokens if token.type == "heading_open" and token.map]
        titles = list(zip(self.headings, places, strict=True))
        (level, _), start = next(each for each in titles if each[0][1] == heading)
        ends = (place - 1 for (other, _), place in titles if place > start and other <= level)
        return "\n".join(lines[start : next(ends, len(lines))])


def _blocks(tokens: list[Token]) -> list[Block]:
    return [Block(token.info.strip(), token.content) for token in tokens if token.type in {"fence", "code_block"}]


def _plain(heading: Token) -> str:
    return "".join(child.content for child in heading.children or () if child.type in {"text", "code_inline"})


def pages() -> list[Page]:
    """Every page: those of docs/, and those that stand beside the code."""
    return [
        Page(path) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
    ]
