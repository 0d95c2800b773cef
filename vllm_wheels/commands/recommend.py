"""``vllm-wheels recommend``."""

from __future__ import annotations

import sys

import click

from vllm_wheels.commands import completion, options
from vllm_wheels.core.errors import CommandLineError, UnsupportedProcessorError
from vllm_wheels.core.host.processors import Advice, advice, flags_of, flags_of_host, flags_of_processor
from vllm_wheels.core.operations.obtaining import way_to


@click.command("recommend", epilog="Example: ssh THERE cat /proc/cpuinfo | vllm-wheels recommend --flags -")
@click.option("--flags", metavar="FLAGS", help="Flags of another processor, or - for its /proc/cpuinfo on stdin.")
@click.option(
    "--cpu", metavar="NAME", shell_complete=completion.processors, help="Processor by gcc's or LLVM's name: znver4."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the variant's name only.")
def command(*, flags: str | None, cpu: str | None, quiet: bool) -> None:
    """Tell which variant suits a processor best: this one, or another.

    Exit status: 17 if none runs on it.
    """
    if flags is not None and cpu is not None:
        what = "--flags and --cpu were both given"
        raise CommandLineError(what, why="they answer the same question", remedy="give one of them")
    try:
        found = advice(_flags(flags, cpu))
    except UnsupportedProcessorError as error:
        options.ERR.print(f"{error.what}: {error.why}", markup=False)
        sys.exit(error.exit_code)
    if quiet:
        options.say(found.variant.name)
    else:
        _show(found)


def _flags(flags: str | None, cpu: str | None) -> frozenset[str]:
    if cpu is not None:
        return flags_of_processor(cpu)
    if flags is not None:
        return flags_of(sys.stdin.read() if flags == "-" else flags)
    return flags_of_host()


def _show(found: Advice) -> None:
    options.say(f"{found.variant.name}: the best for this processor, which has {', '.join(found.variant.floor)}")
    for name, missing in found.above.items():
        options.say(f"  not {name}: it lacks {', '.join(missing)}")
    options.say(way_to(options.read_settings(), found.variant.name))
