"""``vllm-wheels index``."""

from __future__ import annotations

from pathlib import Path

import click

from vllm_wheels.commands.options import json_file_option, print_json, read_settings, say
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.index.static_index import SIMPLE, unlinked, write_index
from vllm_wheels.core.publish.candidate import obstacle_to_release
from vllm_wheels.core.publish.withdraw import yanked


@click.command("index", epilog="Example: vllm-wheels index public && python -m http.server --directory public")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Take wheels from a folder. [default: output_folder]",
)
@click.option("--all", "everything", is_flag=True, help="List wheels that have not passed as well, marked as yanked.")
@json_file_option(what="its projects")
def command(*, folder: Path, source: Path | None, everything: bool, json_file: Path | None) -> None:
    """Write a static package index over the wheels that have passed for release, for any web server."""
    settings = read_settings()
    wheels: list[Path] = []
    marks = dict(yanked(settings.state_folder))
    for wheel in wheels_in(source or settings.output_folder):
        if reason := obstacle_to_release(settings, wheel):
            say(f"NOTICE: {'marked' if everything else 'left out'}: {reason}")
            marks.setdefault(sha256_of(wheel), f"not released: {reason}")
        if everything or not reason:
            wheels.append(wheel)
    listed = write_index(
        folder,
        wheels,
        yanked=marks,
        torch_links=settings.publish.torch_links,
        timeout_seconds=settings.index.timeout_seconds,
    )
    if json_file:
        names = {project: [entry.name for entry in entries] for project, entries in listed.items()}
        print_json(json_file, {"schema_version": 1, "projects": names})
    for project, entries in listed.items():
        say(f"{project}: {', '.join(entry.name for entry in entries)}")
    if missing := unlinked(wheels, listed):
        say(f"NOTICE: CPU builds of {', '.join(missing)} are not in publish.torch_links: installers ask other indexes")
    say(f"serve {folder}, and install with --extra-index-url <address of the server>/{SIMPLE}/")
