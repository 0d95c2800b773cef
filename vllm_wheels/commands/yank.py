"""``vllm-wheels yank``."""

from __future__ import annotations

import click

from vllm_wheels.commands.options import read_settings, say
from vllm_wheels.core.publish.withdraw import affected, instructions, record


@click.command("yank", epilog='Example: vllm-wheels yank 0.32.0 --reason "crashes on Zen 1"')
@click.argument("version")
@click.option("--reason", default="", help="What people see who ask for this version.")
@click.option("--undo", is_flag=True, help="The other way round.")
def command(*, version: str, reason: str, undo: bool) -> None:
    """Tell what to do by hand to withdraw a version, and mark it in our own index from now on."""
    settings = read_settings()
    found = affected(settings.state_folder, version)
    given = reason or f"{version} is withdrawn"
    for line in instructions(found, reason=given, undo=undo):
        say(line)
    record(settings.state_folder, found, reason=given, undo=undo)
    say(f"noted: vllm-wheels index {'no longer marks' if undo else 'marks'} these files as yanked")
