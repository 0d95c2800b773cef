"""The command ``vllm-wheels``: a thin adapter over the same graph that the web UI shows."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, TextIO

import click

from vllm_wheels.commands.completion import VARIABLE
from vllm_wheels.commands.entries import COMMANDS
from vllm_wheels.commands.options import explain, with_verbosity
from vllm_wheels.commands.typed import program
from vllm_wheels.core.errors import CommandLineError, InterruptedBuildError, VllmWheelsError
from vllm_wheels.core.host.handover import hand_over
from vllm_wheels.core.host.secrets import Secrets, move_out
from vllm_wheels.core.host.system_errors import behind, of_system

if TYPE_CHECKING:
    from types import FrameType

SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a command."""

CLOSED_PIPE = 1
"""Status of a command whose reader went away; click's own."""


class Subcommands(click.Group):
    """Imports a subcommand only when it is asked for, so that ``--help`` and the tab key do not wait for Dagster."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of a name; None for an unknown one."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        found: click.Command = import_module(f"vllm_wheels.commands.{entry.module}").command
        return with_verbosity(found)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list, out of the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(
    cls=Subcommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: vllm-wheels build --variant avx512 --release 0.32.0",
)
@click.version_option(package_name="vllm-wheels", prog_name="vllm-wheels")
@click.pass_context
def cli(context: click.Context) -> None:
    """Build, verify and publish CPU-only vLLM wheels in five instruction-set variants."""
    secrets = context.ensure_object(Secrets)
    entry = COMMANDS.get(context.invoked_subcommand or "")
    if entry is None or not entry.tokens:
        context.obj = secrets.forget()


def main() -> None:
    """Entry point: an error of the tree becomes three lines on standard error and its exit code."""
    # First of all, or a file in memory would take the number of a stream that is closed.
    _open_streams()
    secrets = move_out()
    ended = _Ended()
    # A plain `kill` must end compilers and containers as Ctrl-C does.
    signal.signal(signal.SIGTERM, ended)
    try:
        try:
            status = ended.by_signal(run(secrets))
        finally:
            hand_over()
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED_PIPE
    sys.exit(status)


def _open_streams() -> None:
    """Makes standard streams fit to write to, whatever the caller left of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It was closed, so the next file to be opened, say a database, would get everything that is printed.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that does not know a letter shows a question mark; that is no reason to end a build.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # they are text streams at this point


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it stays open until the end


def run(secrets: Secrets | None = None) -> int:  # noqa: PLR0911 - one for each kind of end
    """Runs what was typed and returns its exit status; every error is explained by then."""
    try:
        cli(prog_name=program(), complete_var=VARIABLE, standalone_mode=False, obj=secrets or Secrets())
    except VllmWheelsError as error:
        return explain(error)
    except (KeyboardInterrupt, click.exceptions.Abort):
        what = "interrupted"
        why = "you asked for it; what was finished is kept"
        return explain(InterruptedBuildError(what, why=why, remedy="type the same command again to continue"))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return CommandLineError.exit_code
    except click.ClickException as error:
        return explain(_of_click(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return explain(of_system(error))
    except Exception as error:  # noqa: BLE001 - the last one: its trace is kept for whoever mends it
        return explain(behind(error) or _defect(error))
    return 0


def _of_click(error: click.ClickException) -> CommandLineError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else program()
    lines = " ".join(error.format_message().split())
    what = f"{path}: the command line is not understood"
    return CommandLineError(what, why=lines.rstrip("."), remedy=f"see {path} --help")


def _defect(error: Exception) -> VllmWheelsError:
    with tempfile.NamedTemporaryFile("w", prefix="vllm-wheels-", suffix=".txt", delete=False) as stream:
        traceback.print_exception(error, file=stream)
    what = "this is a defect of vllm-wheels"
    first = (str(error).strip().splitlines() or ["without a message"])[0]
    why = f"{type(error).__name__}: {first}"
    return VllmWheelsError(what, why=why, remedy=f"report it with {stream.name}, which has the details")


class _Ended:
    """Interrupts at a signal as Ctrl-C does, and remembers it: a caller of ``kill`` expects 128 and its number.

    Dagster puts a handler of its own in place of this one while a run lasts; what Python writes into the pipe of
    ``set_wakeup_fd`` tells of the signal all the same.
    """

    def __init__(self) -> None:
        self._heard, telling = os.pipe()
        os.set_blocking(self._heard, False)
        os.set_blocking(telling, False)
        signal.set_wakeup_fd(telling, warn_on_full_buffer=False)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def by_signal(self, status: int) -> int:
        try:
            signals = os.read(self._heard, 1024)
        except BlockingIOError:
            return status
        interrupted = status == InterruptedBuildError.exit_code and signal.SIGTERM in signals
        return SIGNALLED + signal.SIGTERM if interrupted else status
