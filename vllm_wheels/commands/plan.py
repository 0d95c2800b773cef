"""``vllm-wheels plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from vllm_wheels.commands import options, planning
from vllm_wheels.core.engine.rendering import as_markdown


@click.command("plan", epilog="Example: vllm-wheels plan --variant all --release 0.32.0")
@options.wheel_options
@click.option("--details", is_flag=True, help="Every step with its commands, files and downloads.")
@options.json_option
@options.substitutes_option
def command(*, details: bool, json_file: Path | None, **asked: Unpack[options.Asked]) -> None:
    """Show what a build would do, and why; nothing is made."""
    settings, wheels, kinds = options.wheels_of(asked)
    planned = planning.draw_up(settings, wheels, kinds[-1])
    if json_file:
        planning.write_json(json_file, planned)
    if details:
        for document in planned.documents:
            options.say(as_markdown(document))
    else:
        planning.show(planned, settings)
