"""``vllm-wheels publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllm_wheels.commands.options import (
    json_option,
    milestone,
    print_json,
    read_settings,
    say,
    target_of,
    variant_names,
)
from vllm_wheels.core.host.secrets import Secrets
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.publish.candidate import required_variants
from vllm_wheels.core.publish.receipt import deliver
from vllm_wheels.core.publish.release import Publisher, prepare, publishing_context, repositories

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vllm_wheels.core.publish.plan import ReleasePlan
    from vllm_wheels.core.publish.receipt import Receipt


@click.command("publish", epilog="Example: vllm-wheels publish --release 0.32.0, and with --yes to upload")
@click.option("--release", "--vllm-version", "release", help="Release of vLLM. [default: default_release]")
@click.option("--variant", "chosen", multiple=True, default=("all",), show_default=True, help="Which to upload.")
@click.option("--repository", help="Name of the index. [default: publish.repository]")
@click.option("--yes", "go", is_flag=True, help="Upload. Without it, only the plan is shown.")
@click.option("--dry-run", is_flag=True, help="Only show the plan, whatever else is given.")
@json_option(what="the plan, and the receipts,")
@click.pass_obj
def command(
    secrets: Secrets,
    *,
    release: str | None,
    chosen: tuple[str, ...],
    repository: str | None,
    go: bool,
    dry_run: bool,
    json_file: Path | None,
) -> None:
    """Publish the verified wheels of one release: all of them, the flagship last."""
    settings = read_settings()
    wanted = None if "all" in chosen else variant_names(chosen, settings)
    names = required_variants(settings) if wanted is None else required_variants(settings, wanted)
    prepared = prepare(settings, target_of(settings, release=release).release, to=repositories(settings, repository))
    plans = [stage.plan for stage in prepared.stages]
    for plan in plans:
        _show(plan)
    _write(json_file, plans, ())
    for plan in plans:
        plan.require_possible()
    if dry_run or not go:
        say("nothing was uploaded; add --yes to do so")
        return
    builds = build_graph(settings, say=milestone)
    context = publishing_context(settings, runner=builds.runner, find_builder=lambda: builds.builder, say=milestone)
    receipts = Publisher(context=context, secrets=secrets).publish(prepared, chosen=names)
    _write(json_file, plans, receipts)
    for receipt in receipts:
        for path in deliver(receipt, settings.output_folder):
            say(f"{receipt.project} {receipt.version} is on {receipt.repository}: {path}")


def _show(plan: ReleasePlan) -> None:
    say(f"{plan.version} on {plan.repository} ({plan.index}): {plan.state}; next free: {plan.next_version}")
    rows = [("file", "MB", "sha256", "action", "")]
    rows += [(file.file, f"{file.size / 1e6:.1f}", file.sha256[:12], file.action, file.why) for file in plan.files]
    # Not a table of rich, which shortens file names where the output is no terminal.
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for tried in dict.fromkeys(file.tried for file in plan.files):
        say(f"{', '.join(file.variant for file in plan.files if file.tried == tried)}: {tried}")


def _write(file: Path | None, plans: Iterable[ReleasePlan], receipts: Iterable[Receipt]) -> None:
    if file:
        data = {"plans": [plan.as_json() for plan in plans], "receipts": [receipt.as_json() for receipt in receipts]}
        print_json(file, data)
