"""``vllm-wheels build``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from vllm_wheels.commands.options import (
    OUT,
    explain,
    read_settings,
    say,
    substitutes_option,
    target_of,
    target_options,
    variant_names,
)
from vllm_wheels.core.delivery import Delivered, delivered
from vllm_wheels.core.errors import VerificationError
from vllm_wheels.core.setup import set_up as set_machine_up
from vllm_wheels.defs import assets, home, internals, launch, partitions
from vllm_wheels.defs.resources import BuildOptions

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target


@click.command("build", epilog="Example: vllm-wheels build --variant avx512vnni --release 0.32.0")
@click.option("--variant", "chosen", multiple=True, required=True, help="Variant, its distribution, or all.")
@target_options
@click.option("--max-jobs", type=click.IntRange(min=1), help="Parallel compile jobs. [default: from cores and memory]")
@click.option("--output-dir", type=click.Path(path_type=Path), help="Where finished wheels are put.")
@click.option("--no-cleanup", is_flag=True, help="Leave the build folder behind.")
@click.option("--no-verify", is_flag=True, help="Stop after the wheel, without trying it.")
@click.option("--dry-run", is_flag=True, help="Show the plan; do and record nothing.")
@click.option("--set-up", is_flag=True, help="First install and start what this machine lacks (needs root).")
@substitutes_option
def command(
    *,
    chosen: tuple[str, ...],
    release: str | None,
    python: str | None,
    max_jobs: int | None,
    output_dir: Path | None,
    no_cleanup: bool,
    no_verify: bool,
    dry_run: bool,
    set_up: bool,
    allow_substitutes: bool,
) -> None:
    """Build the wheels of one release, and try them."""
    settings = read_settings(allow_substitutes=allow_substitutes)
    names = variant_names(chosen)
    target = target_of(settings, release=release, python=python)
    if set_up and not dry_run:
        set_machine_up(settings, say)
    options = BuildOptions(
        max_jobs=max_jobs,
        output_folder=str(output_dir.absolute()) if output_dir else None,
        keep_build_folder=True if no_cleanup else None,
    )
    kinds = ("wheel",) if no_verify else ("wheel", "verification")
    instance = home.instance(settings)
    partitions.register(instance, target.release)
    chosen_assets = [assets.key(kind, name) for name in names for kind in kinds]
    outcome = launch.launch(target, chosen_assets, instance=instance, options=options, dry_run=dry_run, say=say)
    for failure in outcome.failures:
        explain(failure)
    if dry_run:
        return
    made = _made(instance, options.settings(), target, names)
    _show(made, options.settings())
    if outcome.failures:
        sys.exit(outcome.failures[0].exit_code)
    _require_no_conviction(made)


def _made(instance: DagsterInstance, settings: Settings, target: Target, names: list[str]) -> list[Delivered]:
    """The wheels of the output folder that the instance knows as the newest of their partitions."""
    newest = {internals.latest_data_version(instance, assets.key("wheel", name), target.partition) for name in names}
    found = (wheel for name in names for wheel in delivered(settings.output_folder, replace(target, variant=name)))
    return [wheel for wheel in found if wheel.sha256 in newest]


def _show(made: list[Delivered], settings: Settings) -> None:
    table = Table("MB", "compile s", "verdict", "sha256", "wheel", box=None, pad_edge=False)
    for column in table.columns:
        # Names and hashes are there to be copied whole, whatever the terminal's width.
        column.no_wrap = True
    for wheel in made:
        table.add_row(f"{wheel.megabytes:.1f}", f"{wheel.seconds:.0f}", wheel.verdict, wheel.sha256, wheel.name)
    if made:
        widest = max(len(wheel.name) for wheel in made)
        Console(highlight=False, width=max(OUT.width, widest + 120)).print(table)
        say(f"in {settings.output_folder}")


def _require_no_conviction(made: list[Delivered]) -> None:
    convicted = [wheel.name for wheel in made if wheel.verdict == "convicted"]
    if convicted:
        what = f"convicted: {', '.join(convicted)}"
        why = "the wheel is not what it claims to be"
        raise VerificationError(what, why=why, remedy="read the report.md beside the wheel")
