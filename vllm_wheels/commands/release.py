"""``vllm-wheels release``."""

from __future__ import annotations

import click

from vllm_wheels.commands.options import read_settings, say, target_of
from vllm_wheels.core.releases import releases as offered
from vllm_wheels.core.releases import sdist
from vllm_wheels.defs import home, partitions


@click.group("release")
def command() -> None:
    """Which releases of vLLM this installation knows."""


@command.command("add", epilog="Example: vllm-wheels release add 0.31.0")
@click.argument("releases", nargs=-1, required=True)
def add(releases: tuple[str, ...]) -> None:
    """Register releases, so that they are partitions in Dagster."""
    settings = read_settings()
    for name in releases:
        target_of(settings, release=name, python=None)
        if settings.source.origin == "index":
            sdist(settings, name)
        added = partitions.register(home.instance(settings), name)
        say(f"{name} {'registered' if added else 'was registered already'}")


@command.command("list", epilog="Example: vllm-wheels release list")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
def listing(*, limit: int) -> None:
    """List the newest releases that the index offers, with the Pythons they ask for."""
    for found in list(offered(read_settings()))[-limit:]:
        archive = "source archive" if found.sdist else "no source archive"
        say(f"{found.version}  Python {found.requires_python or 'unsaid'}  {archive}")


@command.command("remove", epilog="Example: vllm-wheels release remove 0.31.0")
@click.argument("name")
def remove(name: str) -> None:
    """Forget a release; what was built of it stays in the store."""
    removed = partitions.unregister(home.instance(read_settings()), name)
    say(f"{name} {'removed' if removed else 'was not registered'}")
