"""``vllm-wheels clean``."""

from __future__ import annotations

from pathlib import Path

import click

from vllm_wheels.commands import options
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.operations.cleaning import rubbish, sweep
from vllm_wheels.core.operations.sharing import remotes_of, removable
from vllm_wheels.core.settings import Settings


@click.command("clean", epilog="Example: vllm-wheels clean --keep 2 --caches --dry-run")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    metavar="N",
    help="Releases whose artifacts stay. [default: automation.newest_releases]",
)
@click.option(
    "--keep-runs", type=click.IntRange(min=0), default=1000, show_default=True, metavar="N", help="Runs that stay."
)
@click.option(
    "--keep-days", type=click.FloatRange(min=0), default=90, show_default=True, metavar="DAYS", help="How long they do."
)
@click.option("--caches", is_flag=True, help="Also the caches of compiler and packages.")
@click.option("--remote", metavar="NAME", help="Clear this remote store, and nothing here.")
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=90.0,
    show_default=True,
    metavar="DAYS",
    help="Of a remote store: artifacts that are as old, and that nothing younger was made from.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.json_option(what="what there is to remove")
def command(
    *,
    keep: int | None,
    keep_runs: int,
    keep_days: float,
    caches: bool,
    remote: str | None,
    older_than: float,
    dry_run: bool,
    yes: bool,
    json_file: Path | None,
) -> None:
    """Remove what can be made again; never what was published, never while a build goes on."""
    settings = options.read_settings()
    if remote:
        _clear_remote(settings, remote, days=older_than, dry_run=dry_run, yes=yes, json_file=json_file)
        return
    newest = settings.automation.newest_releases if keep is None else keep
    if not settings.state_folder.is_dir():
        options.say(f"nothing to remove: {settings.state_folder} is not there")
        return
    runs = _Runs(settings, keep=keep_runs, days=keep_days)
    options.say(f"{len(runs.found)} old runs, with their events and logs")
    # Runs may be removed while builds go on; artifacts may not.
    if runs.found and not dry_run and _is_wanted(yes=yes):
        options.say(f"removed: {runs.remove()} runs")
    with Store(settings.state_folder / "store").alone():
        found = rubbish(settings.state_folder, keep=newest, caches=caches)
        if json_file:
            rows = [{"title": each.title, "count": each.count, "bytes": each.size} for each in found]
            rows += [{"title": "old runs", "count": len(runs.found), "bytes": 0}] if runs.found else []
            options.print_json(json_file, {"schema_version": 1, "removable": rows})
        for each in found:
            options.say(f"{each.size / 1e6:10.1f} MB  {each.title} ({each.count})")
        if not found:
            options.say(f"nothing to remove in {settings.state_folder}")
        elif not dry_run and _is_wanted(yes=yes):
            options.say(f"removed: {sweep(found) / 1e6:.1f} MB of {settings.state_folder}")


def _clear_remote(
    settings: Settings, name: str, *, days: float, dry_run: bool, yes: bool, json_file: Path | None
) -> None:
    remotes = remotes_of(settings, options.say)
    remote = remotes.remote(name)
    found = removable(remotes, remote, days=days)
    size = sum(each.size for each in found)
    title = f"artifacts of {name} older than {days:g} days"
    if json_file:
        rows = [{"title": title, "count": len(found), "bytes": size}] if found else []
        options.print_json(json_file, {"schema_version": 1, "removable": rows})
    options.say(f"{size / 1e6:10.1f} MB  {title} ({len(found)})" if found else f"nothing to remove in {name}")
    if found and not dry_run and _is_wanted(yes=yes):
        remote.objects.delete([each.name for each in found])
        options.say(f"removed: {size / 1e6:.1f} MB of {name}")


class _Runs:
    """Old runs in Dagster's database; none where there is no database yet."""

    def __init__(self, settings: Settings, *, keep: int, days: float) -> None:
        # Whoever only asks for help does not wait for Dagster.
        from vllm_wheels.defs import home, pruning  # noqa: PLC0415

        self._pruning, self._instance = pruning, home.instance(settings)
        self.found = pruning.prunable(self._instance, days=days, keep=keep)

    def remove(self) -> int:
        """Removes them, and returns how many."""
        return sum(1 for _ in self._pruning.prune(self._instance, self.found))


def _is_wanted(*, yes: bool) -> bool:
    if yes:
        return True
    wanted = options.is_interactive() and click.confirm("Remove this?", default=False)
    if not wanted:
        options.say("nothing was removed" if options.is_interactive() else "nothing was removed; add --yes to do so")
    return wanted
