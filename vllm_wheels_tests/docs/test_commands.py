"""Examples: every command, option, variable and setting that the documentation names exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from vllm_wheels.cli import cli
from vllm_wheels.commands.entries import COMMANDS
from vllm_wheels.core.patches.native_vnni import MARK
from vllm_wheels.core.settings import FILE_VARIABLE, GUARD_VARIABLE, PREFIX, Settings
from vllm_wheels_tests.docs.examples import complaint, of_page, of_text
from vllm_wheels_tests.docs.pages import pages

SETTINGS = "vllm-wheels.toml"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_examples_are_taken_by_the_command_line(page):
    """Each example names a command, options and variants that there are."""
    complaints = {command: complaint(command) for command in of_page(page)}
    assert {command: said for command, said in complaints.items() if said} == {}


def test_documentation_has_examples_of_every_command():
    """No command is left for the reader to discover."""
    shown = {command.split()[1] for page in pages() for command in of_page(page)}
    assert set(COMMANDS) - shown == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_works(name):
    """What --help gives as an example is taken by the command itself."""
    command = cli.get_command(click.Context(cli), name)
    several = command.commands.values() if isinstance(command, click.Group) else [command]
    for each in several:
        examples = of_text(each.epilog or "")
        assert examples, f"{name} {each.name} has no example"
        assert [complaint(example) for example in examples] == [None] * len(examples)


@pytest.mark.parametrize(
    "wrong",
    [
        "vllm-wheels biuld --variant all",
        "vllm-wheels build --varient all",
        "vllm-wheels build --variant avx513",
        "vllm-wheels build --variant all --release newest",
        "vllm-wheels build --variant all --max-jobs many",
        "vllm-wheels build --release 0.32.0",
        "vllm-wheels ui now",
    ],
)
def test_wrong_example_is_found(wrong):
    """A command that was renamed does not live on in the documentation."""
    assert complaint(wrong)


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("$ A=1 vllm-wheels env && dagster dev", ["vllm-wheels env"]),
        ('eval "$(vllm-wheels env)"', ["vllm-wheels env"]),
        ("sudo ./run build --variant all  # all", ["./run build --variant all"]),
        ("vllm-wheels build \\\n  --variant all", ["vllm-wheels build    --variant all"]),
        ("a vllm-wheels.toml file", []),
    ],
)
def test_commands_are_found_in_a_text(text, commands):
    """Prompts, variables, comments and what stands around a command do not hide it."""
    assert of_text(text) == commands


def known(model: type[BaseModel], prefix: str = PREFIX) -> set[str]:
    """Environment variables of all settings."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(f"{prefix}{name.upper()}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= known(field.annotation, f"{prefix}{name.upper()}__")
    return found


@pytest.mark.parametrize("page", pages(), ids=str)
def test_variables_of_the_documentation_exist(page):
    """Each VLLM_WHEELS_ variable is one that is read, but for the mark of patched sources."""
    named = set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", page.text))
    assert named - known(Settings) - {FILE_VARIABLE, GUARD_VARIABLE, MARK} == set()


@pytest.mark.parametrize("page", pages(), ids=str)
def test_settings_of_the_documentation_are_accepted(page, monkeypatch, tmp_path):
    """Each example of a settings file can be copied: its keys exist and its values are allowed."""
    for number, block in enumerate(page.blocks):
        if block.language == "toml" and block.text.startswith(f"# {SETTINGS}"):
            tomllib.loads(block.text)
            (tmp_path / f"{number}.toml").write_text(block.text)
            monkeypatch.setenv(FILE_VARIABLE, str(Path(tmp_path / f"{number}.toml")))
            Settings()
