"""``vllm-wheels release``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from packaging.version import Version

from vllm_wheels.commands import completion
from vllm_wheels.commands.options import json_option, milestone, print_json, read_settings, say, target_of
from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.index.releases import releases as offered
from vllm_wheels.core.index.releases import sdist
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.defs import home, partitions

if TYPE_CHECKING:
    from vllm_wheels.core.operations.descriptions import Look


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


@command.command("show", epilog="Example: vllm-wheels release show 0.33.0")
@click.argument("name", metavar="RELEASE", shell_complete=completion.releases)
@json_option(what="it")
def show(name: str, json_file: Path | None) -> None:
    """Describe a release by its source: all that the patches rely on, and what they make of it."""
    found = _look(name)
    if json_file:
        outcomes = [asdict(each) for each in found.outcomes]
        data = {"schema_version": 1, "description": asdict(found.description), "outcomes": outcomes}
        print_json(json_file, data)
        return
    for line in _shown(found):
        say(line)


@command.command("diff", epilog="Example: vllm-wheels release diff 0.32.0 0.33.0")
@click.argument("before", metavar="RELEASE", shell_complete=completion.releases)
@click.argument("after", metavar="RELEASE", shell_complete=completion.releases)
@json_option(what="it")
def diff(before: str, after: str, json_file: Path | None) -> None:
    """Show what changed from one release to another, of all that the patches rely on."""
    from vllm_wheels.core.patches.description import differences  # noqa: PLC0415 - other commands do not need it

    old, new = _look(before), _look(after)
    changed = list(differences(old.description, new.description))
    if json_file:
        print_json(json_file, {"schema_version": 1, "before": before, "after": after, "differences": changed})
        return
    for line in changed or [f"nothing that the patches rely on changed from {before} to {after}"]:
        say(line)


def _look(name: str) -> Look:
    from vllm_wheels.core.operations.descriptions import look  # noqa: PLC0415 - other commands do not need it

    settings = read_settings()
    return look(settings, target_of(settings, release=name), say=milestone)


def _shown(found: Look) -> Iterator[str]:
    from vllm_wheels.core.patches.description import lines  # noqa: PLC0415 - other commands do not need it

    yield from lines(found.description)
    for each in found.outcomes:
        same = f"= {each.same_code_as}" if each.same_code_as else "all patches took"
        yield f"{each.variant}: {f'refused: {each.refused}' if each.refused else same}"
    for notice in dict.fromkeys(notice for each in found.outcomes for notice in each.notices):
        yield f"NOTICE: {notice}"


@command.command("remove", epilog="Example: vllm-wheels release remove 0.31.0")
@click.argument("name", shell_complete=completion.releases)
def remove(name: str) -> None:
    """Forget a release; what was built of it stays in the store."""
    settings = read_settings()
    release = target_of(settings, release=name).release
    removed = partitions.unregister(home.instance(settings), release)
    say(f"{release} {'removed' if removed else 'was not registered'}")
