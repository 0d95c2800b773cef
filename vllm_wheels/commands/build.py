"""``vllm-wheels build``."""

from __future__ import annotations

import importlib
import shlex
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from vllm_wheels.commands import closing, options, planning
from vllm_wheels.commands.display import shown
from vllm_wheels.commands.typed import program
from vllm_wheels.core.engine.rendering import as_markdown
from vllm_wheels.core.engine.run_cache import remembering
from vllm_wheels.core.errors import InterruptedBuildError
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.operations.delivery import deliver
from vllm_wheels.core.operations.preflight import draw_up
from vllm_wheels.core.operations.set_up import set_up as set_machine_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dagster import DagsterInstance

    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.errors import VllmWheelsError
    from vllm_wheels.core.operations.preflight import Planned
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target
    from vllm_wheels.defs.resources import BuildOptions

QUESTION = "Build this?"


@click.command("build", epilog="Example: vllm-wheels build --variant avx512vnni --release 0.32.0")
@options.wheel_options
@click.option("--dry-run", is_flag=True, help="Show every step, and build nothing.")
@options.plan_json_option
@click.option("--yes", is_flag=True, help="Do not ask before building.")
@click.option("--retry", is_flag=True, help="Try again what failed, although nothing that decides about it changed.")
@click.option("--set-up", is_flag=True, help="First install what this machine lacks (as root).")
@options.substitutes_option
def command(
    *, dry_run: bool, json_file: Path | None, yes: bool, retry: bool, set_up: bool, **asked: Unpack[options.Asked]
) -> None:
    """Build the wheels of one release, and try them."""
    settings, wheels, kinds = options.wheels_of(asked)
    if set_up and not dry_run:
        set_machine_up(settings, options.milestone)
    if not dry_run:
        _load_dagster()
    with remembering():
        planned = draw_up(settings, wheels, kinds[-1], say=options.milestone, set_up=set_up and dry_run)
        if json_file:
            planning.write_json(json_file, planned)
        if dry_run:
            for document in planned.documents:
                options.say(as_markdown(document))
            return
        planning.show(planned, settings, say=options.milestone)
        if _is_wanted(planned, yes=yes):
            _build(settings, planned, kinds, retry=retry)


def _load_dagster() -> None:
    # Planning mostly waits for package indexes, and importing Dagster takes as long.
    threading.Thread(target=importlib.import_module, args=("vllm_wheels.defs.launch",), daemon=True).start()


def _is_wanted(planned: Planned, *, yes: bool) -> bool:
    if yes or not planned.to_be_made() or not options.is_interactive():
        return True
    wanted = click.confirm(QUESTION, default=True)
    if not wanted:
        options.say("nothing was built")
    return wanted


def _build(settings: Settings, planned: Planned, kinds: tuple[str, ...], *, retry: bool) -> None:
    # Whoever only asks for a plan, or for help, does not wait for Dagster.
    from vllm_wheels.defs import home, launch, partitions  # noqa: PLC0415
    from vllm_wheels.defs.keys import key  # noqa: PLC0415

    instance, how = home.instance(settings), _for_run(settings, retry=retry)
    failures: list[VllmWheelsError] = []
    try:
        with shown(planned.estimates(), assumed=planned.assumed_misses()) as show:
            tell = _once(show, planned)
            for target in dict.fromkeys(wheel.shared() for wheel in planned.targets):
                wheels = [wheel for wheel in planned.targets if wheel.shared() == target]
                if not planned.to_be_made() and _delivered(wheels, kinds, instance, how.builds(say=tell)):
                    continue
                partitions.register(instance, target.release, target.python)
                chosen = [key(kind, wheel.variant) for wheel in wheels for kind in kinds]
                why = {
                    key(kind, of.variant): "; ".join(artifact.reasons)
                    for (kind, of), artifact in planned.to_be_made()
                    if kind in rules() and of.shared() == target
                }
                outcome = launch.launch(
                    target, chosen, instance=instance, options=how, dry_run=False, say=tell, why=why
                )
                failures += outcome.failures
    except KeyboardInterrupt:
        raise _interrupted() from None
    for failure in failures:
        options.explain(failure)
    made = closing.made(settings, planned.targets)
    closing.show(made, settings, verified="verification" in kinds)
    if failures:
        sys.exit(failures[0].exit_code)
    closing.require_verdicts(made)


def _delivered(wheels: Sequence[Target], kinds: tuple[str, ...], instance: DagsterInstance, builds: BuildGraph) -> bool:
    """Puts wheels of which Dagster knows all there is to know into the output folder, without a run."""
    from vllm_wheels.defs.launch import is_recorded  # noqa: PLC0415 - as in ``_build``

    if not all(is_recorded(wheel, kinds, instance=instance, builds=builds) for wheel in wheels):
        return False
    for wheel in wheels:
        deliver(builds, kinds[-1], wheel)
    return True


def _once(show: Callable[[str], None], planned: Planned) -> Callable[[str], None]:
    """Leaves out the notices that were shown with the plan."""
    known = {f"NOTICE: {notice}" for notice in planned.notices()}

    def tell(line: str) -> None:
        if line not in known:
            show(line)

    return tell


def _for_run(settings: Settings, *, retry: bool) -> BuildOptions:
    from vllm_wheels.defs.resources import BuildOptions  # noqa: PLC0415 - as in ``_build``

    return BuildOptions(
        max_jobs=settings.builder.max_jobs,
        output_folder=str(settings.output_folder),
        keep_build_folder=settings.builder.keep_build_folder,
        retry=retry,
    )


def _interrupted() -> InterruptedBuildError:
    typed = shlex.join([program(), *sys.argv[1:]])
    what = "interrupted: the compiler is stopped"
    why = "you asked for it; what was finished, and what the compiler had done, is kept"
    return InterruptedBuildError(what, why=why, remedy=f"to go on from there: {typed}")
