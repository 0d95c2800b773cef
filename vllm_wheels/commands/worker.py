"""``vllm-wheels worker``."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path

import click

from vllm_wheels.commands.options import json_option, print_json, read_settings, say
from vllm_wheels.core.errors import MachineError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.operations.hardware import abilities, queues
from vllm_wheels.defs import home, workers


@click.command("worker", epilog="Example: vllm-wheels worker --show")
@click.option("--show", is_flag=True, help="Only tell what this machine can do.")
@click.option("--name", default=platform.node(), help="Name among the workers. [default: the host's]")
@json_option(what="what this machine can do")
def command(*, show: bool, name: str, json_file: Path | None) -> None:
    """Carry out steps of Dagster's runs that wait for a machine such as this one; Ctrl-C ends it after the step."""
    settings = read_settings()
    able = abilities()
    listened = queues(able)
    if json_file:
        print_json(json_file, {"schema_version": 1, **asdict(able), "queues": listened})
    say(f"{able.cores} cores, {able.gigabytes:.1f} GB of memory, tries {', '.join(able.variants) or 'no variant'}")
    say(f"queues: {', '.join(listened)}")
    if show:
        return
    workers.celery_options(settings.workers)
    environment = {**workers.environment(settings), "DAGSTER_HOME": str(home.prepare(settings))}
    finished = Runner(echo=say).run(workers.worker_argv(listened, name), env=environment)
    if finished.status:
        why = finished.tail[-1] if finished.tail else f"it ended with status {finished.status}"
        what = f"the worker {name} ended"
        raise MachineError(what, why=why, remedy="see its lines above; most often its queue is gone")
