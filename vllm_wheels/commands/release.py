"""``vllm-wheels release``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from packaging.version import Version

from vllm_wheels.commands import completion
from vllm_wheels.commands.options import json_option, print_json, read_settings, say, target_of
from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.index.releases import releases as offered
from vllm_wheels.core.index.releases import sdist
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
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
        target = target_of(settings, release=name)
        added = partitions.register(home.instance(settings), target.release, *_pythons(settings, target))
        say(f"{target.release} {'registered' if added else 'was registered already'}")


def _pythons(settings: Settings, target: Target) -> list[str]:
    """The Pythons that a release asks for, as far as the index tells; it has to have its source."""
    if settings.source.origin != "index":
        return [target.python]
    sdist(settings, target.release)
    asked = next((found.requires_python for found in offered(settings) if found.version == target.release), None)
    return [python for python in partitions.PYTHONS if supports(asked, python)]


@command.command("list", epilog="Example: vllm-wheels release list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many of the newest.")
@click.option("--registered", "only_registered", is_flag=True, help="Only those that are registered here.")
@json_option(what="them")
def listing(*, limit: int, only_registered: bool, json_file: Path | None) -> None:
    """List the releases that the index offers, with the Pythons they ask for; * marks what is registered here."""
    settings = read_settings()
    known = set(partitions.registered(home.instance(settings)))
    if only_registered:
        rows = [{"release": name, "registered": True} for name in sorted(known, key=Version)]
    else:
        rows = [
            {
                "release": found.version,
                "registered": found.version in known,
                "requires_python": found.requires_python,
                "source_archive": found.sdist is not None,
            }
            for found in list(offered(settings))[-limit:]
        ]
    if json_file:
        print_json(json_file, {"schema_version": 1, "releases": rows})
        return
    for row in rows:
        say(str(row["release"]) if only_registered else _line(row))


def _line(row: Mapping[str, Any]) -> str:
    archive = "source archive" if row["source_archive"] else "no source archive"
    mark = "*" if row["registered"] else " "
    return f"{mark} {row['release']}  Python {row['requires_python'] or 'unsaid'}  {archive}"


@command.command("remove", epilog="Example: vllm-wheels release remove 0.31.0")
@click.argument("name", shell_complete=completion.releases)
def remove(name: str) -> None:
    """Forget a release; what was built of it stays in the store."""
    settings = read_settings()
    release = target_of(settings, release=name).release
    removed = partitions.unregister(home.instance(settings), release)
    say(f"{release} {'removed' if removed else 'was not registered'}")
