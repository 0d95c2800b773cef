"""What several subcommands share: options, settings, and how errors and milestones are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant as variant_named
from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from vllm_wheels.core.errors import VllmWheelsError
    from vllm_wheels.core.settings import Settings

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)

Command = Callable[..., Any]


def explain(error: VllmWheelsError) -> int:
    """Prints an error's three lines on standard error and returns its exit code."""
    ERR.print(f"error: {error}", markup=False)
    return error.exit_code


def say(line: str) -> None:
    """Prints a milestone."""
    OUT.print(line, markup=False)


def target_options(command: Command) -> Command:
    """Options that name a release and a Python."""
    for decorate in (
        click.option("--python-version", "python", help="Python to build on. [default: this one]"),
        click.option("--release", "--vllm-version", "release", help="Release of vLLM. [default: default_release]"),
    ):
        command = decorate(command)
    return command


def substitutes_option(command: Command) -> Command:
    """The option that allows substitutes for official pieces."""
    text = "Where an official piece is out of reach, take its substitute, loudly."
    return click.option("--allow-substitutes", is_flag=True, help=text)(command)


def read_settings(*, allow_substitutes: bool = False) -> Settings:
    """The user's settings, with what the command line adds."""
    if allow_substitutes:
        # Through the environment, so that Dagster's own processes read the same settings.
        os.environ["VLLM_WHEELS_SUBSTITUTES"] = "allow"
    return configuration.load()


def target_of(settings: Settings, *, release: str | None, python: str | None) -> Target:
    """The target that the options name, with the defaults filled in."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Target(release=release or settings.default_release, python=python or here)


def variant_names(chosen: tuple[str, ...]) -> list[str]:
    """Variants in the order named; ``all`` is every one.

    Raises:
        UnknownVariantError: no variant has the name.
    """
    wanted = list(variants()) if "all" in chosen else [variant_named(name).name for name in chosen]
    return list(dict.fromkeys(wanted))
