"""``vllm-wheels worker``."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import click

from vllm_wheels.commands.options import json_option, print_json, read_settings, say
from vllm_wheels.core.operations.hardware import abilities, queues
from vllm_wheels.defs import home, workers


@click.command("worker", epilog="Example: vllm-wheels worker --show")
@click.option("--show", is_flag=True, help="Only tell what this machine can do.")
@click.option("--name", default=platform.node(), help="Name among the workers. [default: the host's]")
@json_option(what="what this machine can do")
def command(*, show: bool, name: str, json_file: Path | None) -> None:
    """Carry out steps of Dagster's runs that wait for a machine such as this one; Ctrl-C ends it after the step."""
    settings = read_settings()
    able = abilities(settings.state_folder)
    listened = queues(able)
    if json_file:
        print_json(json_file, {"schema_version": 1, **asdict(able), "queues": listened})
    has = f"{able.cores} cores, {able.gigabytes:.1f} GB of memory, {able.disk_gigabytes:.1f} GB of disk"
    say(f"{has}, tries {', '.join(able.variants) or 'no variant'}")
    say(f"queues: {', '.join(listened)}")
    if show:
        return
    workers.celery_options(settings.workers)
    environment = {**os.environ, **workers.environment(settings), "DAGSTER_HOME": str(home.prepare(settings))}
    argv = workers.worker_argv(listened, name)
    sys.stdout.flush()
    # In the place of this process, so that a signal to it, also the last one, is one to the worker.
    os.execve(argv[0], argv, environment)  # noqa: S606
