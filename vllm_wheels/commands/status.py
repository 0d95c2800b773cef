"""``vllm-wheels status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from vllm_wheels.commands.options import OUT, json_option, milestone, print_json, read_settings, say
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.operations.status import moment, shown

if TYPE_CHECKING:
    from vllm_wheels.core.operations.status import Cell, Status


@click.command("status", epilog="Example: vllm-wheels status --html public/status.html")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as one page, to be hosted."
)
@json_option(what="it")
def command(*, html: Path | None, json_file: Path | None) -> None:
    """Show all wheels: what is built, tried, published, stale or broken, and what happens next."""
    # Whoever only asks for help does not wait for Dagster.
    from vllm_wheels.definitions import defs  # noqa: PLC0415
    from vllm_wheels.defs import home, overview  # noqa: PLC0415
    from vllm_wheels.defs.sqlite import kept_open  # noqa: PLC0415

    settings = read_settings()
    builds = build_graph(settings, say=milestone)
    with kept_open():
        status = overview.gather(home.instance(settings), builds, defs.resolve_asset_graph())
    if html:
        write_atomically(html.absolute(), status.as_html())
    if json_file:
        print_json(json_file, status.as_json())
    else:
        _print(status)


def _print(status: Status) -> None:
    if not status.cells:
        say("no release is registered here: vllm-wheels release add 0.32.0")
    for release in status.releases:
        say(f"vLLM {release}{': complete' if status.is_complete(release) else ''}")
        table = Table("", *status.pythons(release), box=None, pad_edge=False)
        for variant, row in status.rows(release):
            table.add_row(variant, *(_cell(status, cell) for cell in row))
        Console(highlight=False, width=max(OUT.width, 100)).print(table)
    for line in status.lines():
        say(line)
    say(f"next rebuild: {moment(status.nightly)}" if status.nightly else "nothing is rebuilt by itself")


def _cell(status: Status, cell: Cell) -> str:
    size = f"{cell.megabytes:.1f} MB" if cell.megabytes else ""
    return " ".join(part for part in (shown(cell), size, status.age(cell), *cell.published) if part)
