"""The user's configuration: file, environment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.settings import load


def write(text: str) -> None:
    Path("vllm-wheels.toml").write_text(text)


def test_nothing_configured_means_official_artifacts():
    """Without any configuration, everything comes from where upstream takes it."""
    settings = load()
    assert (settings.source.origin, settings.onednn.origin, settings.builder.image) == ("index", "pinned", "manylinux")
    assert settings.torch.packages == ("torch", "torchvision", "torchaudio")
    assert settings.substitutes == "refuse"


def test_file_in_the_working_folder_is_read():
    """vllm-wheels.toml of the working folder applies."""
    write('[builder]\nmax_jobs = 3\n[torch]\npackages = ["torch"]\n')
    assert (load().builder.max_jobs, load().torch.packages) == (3, ("torch",))


def test_variable_wins_over_the_file_and_leaves_its_neighbours(monkeypatch):
    """One variable changes one value of a table."""
    write("[builder]\nmax_jobs = 3\nkeep_build_folder = true\n")
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__MAX_JOBS", "5")
    assert (load().builder.max_jobs, load().builder.keep_build_folder) == (5, True)


def test_named_file_wins_over_the_working_folder(monkeypatch, tmp_path):
    """VLLM_WHEELS_FILE names another file."""
    write("[builder]\nmax_jobs = 3\n")
    other = tmp_path / "other.toml"
    other.write_text("[builder]\nmax_jobs = 4\n")
    monkeypatch.setenv("VLLM_WHEELS_FILE", str(other))
    assert load().builder.max_jobs == 4


def test_folders_become_absolute():
    """A process that runs elsewhere finds the same state."""
    assert load().state_folder == Path.cwd() / ".vllm-wheels"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[builder]\nmax_job = 3\n", ("builder.max_job", "max_jobs")),
        ("[bilder]\nmax_jobs = 3\n", ("bilder", "builder")),
        ("[builder]\nmax_jobs = 0\n", ("builder.max_jobs", "greater than 0")),
        ('[wheel]\nversion_suffix = "+mine"\n', ("wheel.version_suffix", "+mine")),
        ("[builder\n", ("vllm-wheels.toml", "cannot be read")),
    ],
    ids=["misspelt key", "misspelt table", "value out of range", "suffix that indexes refuse", "no TOML"],
)
def test_wrong_file_names_the_place_and_the_remedy(text, words):
    """A mistake is named with what was probably meant."""
    write(text)
    with pytest.raises(SettingsError) as caught:
        load()
    assert all(word in str(caught.value) for word in words)


def test_misspelt_variable_names_the_right_one(monkeypatch):
    """A variable that nothing reads is refused, not ignored."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__MAX_JOB", "3")
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.remedy == "write VLLM_WHEELS_BUILDER__MAX_JOBS"


def test_named_file_that_is_missing_is_an_error(monkeypatch):
    """Nobody builds with other settings than they think."""
    monkeypatch.setenv("VLLM_WHEELS_FILE", "/nowhere.toml")
    with pytest.raises(SettingsError):
        load()


def test_keys_of_earlier_versions_are_still_understood(tmp_path, monkeypatch):
    """A settings file from before a key was renamed goes on working."""
    file = tmp_path / "vllm-wheels.toml"
    file.write_text('[smoke]\nvenue = "host"\n[wheel]\nhollow_variants = "refuse"\n', "utf-8")
    monkeypatch.setenv("VLLM_WHEELS_FILE", str(file))
    found = load()
    assert (found.smoke.location, found.wheel.same_code_variants) == ("host", "refuse")
