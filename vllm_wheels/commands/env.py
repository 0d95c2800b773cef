"""``vllm-wheels env``."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from vllm_wheels.commands.options import read_settings, substitutes_option, target_of, target_options
from vllm_wheels.core.settings_example import example
from vllm_wheels.defs import home, partitions


@click.command(
    "env", epilog='Example: eval "$(vllm-wheels env)" && dagster asset materialize --select wheel/avx512vnni'
)
@target_options
@click.option("--settings", "only_settings", is_flag=True, help="Print a settings file with every key instead.")
@substitutes_option
def command(*, release: str | None, pythons: tuple[str, ...], only_settings: bool, allow_substitutes: bool) -> None:
    """Print the variables that Dagster's own commands need, and register the release."""
    if only_settings:
        click.echo(example(), nl=False)
        return
    settings = read_settings(allow_substitutes=allow_substitutes)
    target = target_of(settings, release=release, pythons=pythons)
    variables = dict(home.environment(settings, target))
    partitions.register(home.instance(settings), target.release, target.python)
    tools, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    if tools not in path.split(os.pathsep):
        variables["PATH"] = f"{tools}{os.pathsep}{path}"
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
