"""``vllm-wheels set-up``."""

from __future__ import annotations

import click

from vllm_wheels.commands.options import read_settings, say
from vllm_wheels.core.setup import set_up


@click.command("set-up", epilog="Example: sudo vllm-wheels set-up")
def command() -> None:
    """Install and start what building in a container needs on this machine."""
    set_up(read_settings(), say)
