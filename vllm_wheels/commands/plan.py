"""``vllm-wheels plan``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Unpack

import click

from vllm_wheels.commands import options, planning
from vllm_wheels.core.engine.rendering import as_markdown
from vllm_wheels.core.engine.run_cache import remembering
from vllm_wheels.core.operations.preflight import draw_up
from vllm_wheels.core.operations.set_up import missing


@click.command("plan", epilog="Example: vllm-wheels plan --variant all --release 0.32.0")
@options.wheel_options
@click.option("--details", is_flag=True, help="Every step with its commands, files and downloads.")
@options.plan_json_option
@click.option("--set-up", is_flag=True, help="Plan as if what this machine lacks were installed.")
@options.substitutes_option
def command(*, details: bool, json_file: Path | None, set_up: bool, **asked: Unpack[options.Asked]) -> None:
    """Show what a build would do, and why, or why it would be refused; only sources are fetched."""
    settings, wheels, kinds = options.wheels_of(asked)
    for item in missing(settings) if set_up else ():
        options.say(f"set up {item.title}: {shlex.join(item.argv)}")
    with remembering():
        planned = draw_up(settings, wheels, kinds[-1], say=options.milestone, set_up=set_up)
    if json_file:
        planning.write_json(json_file, planned)
    if json_file and str(json_file) == options.STANDARD_OUTPUT:
        return
    if details:
        for document in planned.documents:
            options.say(as_markdown(document))
    else:
        planning.show(planned, settings)
