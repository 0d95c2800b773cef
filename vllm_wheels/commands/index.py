"""``vllm-wheels index``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllm_wheels.commands.options import json_file_option, print_json, read_settings, say
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.formats.wheel_name import wheel_in, wheels_in
from vllm_wheels.core.index.static_index import SIMPLE, unlinked, write_index
from vllm_wheels.core.publish.withdraw import yanked

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings


@click.command("index", epilog="Example: vllm-wheels index public && python -m http.server --directory public")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--from", "source", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Take wheels from a folder."
)
@json_file_option(what="its projects")
def command(*, folder: Path, source: Path | None, json_file: Path | None) -> None:
    """Write a static package index over the wheels of the store, for any web server."""
    settings = read_settings()
    wheels = wheels_in(source) if source else _newest(settings)
    listed = write_index(
        folder,
        wheels,
        yanked=yanked(settings.state_folder),
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


def _newest(settings: Settings) -> list[Path]:
    """One wheel per file name: the newest that the store made."""
    artifacts = Store(settings.state_folder / "store").artifacts("wheel")
    found: dict[str, Path] = {}
    for artifact in artifacts:
        path = wheel_in(artifact.folder)
        found.setdefault(path.name, path)
    return list(found.values())
