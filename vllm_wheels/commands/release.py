"""``vllm-wheels release``."""

from __future__ import annotations

import click
from packaging.version import Version

from vllm_wheels.commands import completion
from vllm_wheels.commands.options import read_settings, say, target_of
from vllm_wheels.core.index.releases import releases as offered
from vllm_wheels.core.index.releases import sdist
from vllm_wheels.defs import home, partitions


@click.group("release", epilog="Example: vllm-wheels release add 0.31.0")
def command() -> None:
    """Which releases of vLLM this installation knows."""


@command.command("add", epilog="Example: vllm-wheels release add 0.31.0")
@click.argument("releases", nargs=-1, required=True)
def add(releases: tuple[str, ...]) -> None:
    """Register releases, so that they are partitions in Dagster."""
    settings = read_settings()
    for name in releases:
        release = target_of(settings, release=name).release
        if settings.source.origin == "index":
            sdist(settings, release)
        added = partitions.register(home.instance(settings), release)
        say(f"{release} {'registered' if added else 'was registered already'}")


@command.command("list", epilog="Example: vllm-wheels release list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many of the newest.")
@click.option("--registered", "only_registered", is_flag=True, help="Only those that are registered here.")
def listing(*, limit: int, only_registered: bool) -> None:
    """List the releases that the index offers, with the Pythons they ask for; * marks what is registered here."""
    settings = read_settings()
    known = set(partitions.registered(home.instance(settings)))
    if only_registered:
        for name in sorted(known, key=Version):
            say(name)
        return
    for found in list(offered(settings))[-limit:]:
        archive = "source archive" if found.sdist else "no source archive"
        mark = "*" if found.version in known else " "
        say(f"{mark} {found.version}  Python {found.requires_python or 'unsaid'}  {archive}")


@command.command("remove", epilog="Example: vllm-wheels release remove 0.31.0")
@click.argument("name", shell_complete=completion.releases)
def remove(name: str) -> None:
    """Forget a release; what was built of it stays in the store."""
    settings = read_settings()
    release = target_of(settings, release=name).release
    removed = partitions.unregister(home.instance(settings), release)
    say(f"{release} {'removed' if removed else 'was not registered'}")
