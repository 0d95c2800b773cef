"""``vllm-wheels rebuild``."""

from __future__ import annotations

from pathlib import Path

import click

from vllm_wheels.commands.options import read_settings, say
from vllm_wheels.core.rebuild import read_statement
from vllm_wheels.core.rebuild import rebuild as make_again


@click.command("rebuild", epilog="Example: vllm-wheels rebuild wheels/vllm_cpu-0.32.0-....intoto.json")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def command(*, file: Path) -> None:
    """Make a wheel again from its statement (or the one beside the wheel), and compare the bytes."""
    rebuilt = make_again(read_statement(file), read_settings(), say=say, echo=say)
    say(f"the same bytes: {rebuilt.path.name} sha256 {rebuilt.sha256}")
