"""``vllm-wheels plan``."""

from __future__ import annotations

from pathlib import Path

import click

from vllm_wheels.commands import options, planning
from vllm_wheels.core.engine.rendering import as_markdown


@click.command("plan", epilog="Example: vllm-wheels plan --variant all --release 0.32.0")
@options.variant_option
@options.target_options
@options.build_options
@click.option("--no-verify", is_flag=True, help="Stop after the wheel, without trying it.")
@click.option("--details", is_flag=True, help="Every step with its commands, files and downloads.")
@options.json_option
@options.substitutes_option
def command(
    *,
    chosen: tuple[str, ...],
    release: str | None,
    pythons: tuple[str, ...],
    max_jobs: int | None,
    output_dir: Path | None,
    no_cleanup: bool,
    no_verify: bool,
    details: bool,
    json_file: Path | None,
    allow_substitutes: bool,
) -> None:
    """Show what a build would do, and why; nothing is made."""
    settings = options.adjusted(
        options.read_settings(allow_substitutes=allow_substitutes),
        max_jobs=max_jobs,
        output_folder=output_dir,
        keep_build_folder=no_cleanup,
    )
    names = options.variant_names(chosen, settings)
    targets = planning.wheels(options.targets_of(settings, release=release, pythons=pythons), names)
    planned = planning.draw_up(settings, targets, "wheel" if no_verify else "verification")
    if json_file:
        planning.write_json(json_file, planned)
    if details:
        for document in planned.documents:
            options.say(as_markdown(document))
    else:
        planning.show(planned, settings)
