"""docs/vllm-wheels.toml: every setting, as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.settings import Settings, load
from vllm_wheels.core.settings_example import UNSET, example

KEPT = Path(__file__).parents[2] / "docs" / "vllm-wheels.toml"
KEY = re.compile(r"^#(\w+ = .*)$", re.MULTILINE)


def test_kept_file_is_the_one_that_the_code_writes():
    """vllm-wheels env --settings > docs/vllm-wheels.toml, whenever a setting changes."""
    assert KEPT.read_text("utf-8") == example()


def test_file_as_it_is_changes_nothing():
    """Everything in it is commented out."""
    Path("vllm-wheels.toml").write_text(example())
    assert load() == load_without_file()


def test_defaults_in_the_file_are_the_real_ones():
    """Whoever removes the # of every key gets what he had."""
    text = KEY.sub(lambda match: match[0] if match[1].endswith(UNSET) else match[1], example())
    head, _, _ = text.partition("#[publish.repositories")
    Path("vllm-wheels.toml").write_text(head)
    assert load() == load_without_file()


def load_without_file() -> Settings:
    """The defaults."""
    Path("vllm-wheels.toml").rename("elsewhere.toml")
    return load()


def test_every_variable_of_the_file_is_understood(monkeypatch):
    """A variable that the file names is none that is refused."""
    variables = re.findall(r"VLLM_WHEELS_\w+__\w+", example())
    assert len(variables) > 50
    for name in variables:
        monkeypatch.setenv(name, "what is this")
        with pytest.raises(SettingsError) as caught:
            # One impossible value at least is refused for its value, not for its name.
            load(state_folder=[])
        assert "is not a setting" not in caught.value.what
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("BUILDER__KIND", "contaner", "write 'container'"),
        ("SOURCE__ORIGIN", "Git", "write 'git'"),
        ("SUBSTITUTES", "perhaps not", "write one of refuse, allow"),
        ("TORCH__PACKAGES", "torch", "write lists and tables as JSON"),
    ],
)
def test_wrong_value_is_answered_with_the_nearest_right_one(monkeypatch, name, value, remedy):
    """A typing error in a value is as plain as one in a name."""
    monkeypatch.setenv(f"VLLM_WHEELS_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.remedy.startswith(remedy)
    assert f"VLLM_WHEELS_{name}" in str(caught.value)
