"""The command ``vllm-wheels``: a thin adapter over the same graph that the web UI shows."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from vllm_wheels.commands.options import explain
from vllm_wheels.core.errors import InterruptedBuildError, VllmWheelsError

if TYPE_CHECKING:
    from types import FrameType

COMMANDS = {
    "build": "build",
    "env": "env",
    "index": "index",
    "publish": "publish",
    "rebuild": "rebuild",
    "release": "release",
    "set-up": "set_up",
    "ui": "ui",
    "verify": "verify",
    "yank": "yank",
}
"""Subcommands: name on the command line to module of ``vllm_wheels.commands``, whose ``command`` it is."""


class Subcommands(click.Group):
    """Imports a subcommand only when it is asked for, so that ``--help`` does not wait for Dagster."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of a name; None for an unknown one."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found: click.Command = import_module(f"vllm_wheels.commands.{module}").command
        return found


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="vllm-wheels")
def cli() -> None:
    """Build, verify and publish CPU-only vLLM wheels in five instruction-set variants."""


def main() -> None:
    """Entry point: an error of the tree becomes three lines on standard error and its exit code."""
    # A plain `kill` must end compilers and containers as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cli(standalone_mode=False)
    except VllmWheelsError as error:
        sys.exit(explain(error))
    except (KeyboardInterrupt, click.exceptions.Abort):
        what = "interrupted"
        why = "you asked for it; what was finished is kept"
        sys.exit(explain(InterruptedBuildError(what, why=why, remedy="type the same command again to continue")))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
