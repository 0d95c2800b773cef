"""``vllm-wheels recommend``."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from vllm_wheels.commands import completion, options
from vllm_wheels.core.errors import CommandLineError, UnsupportedProcessorError
from vllm_wheels.core.host.processors import Advice, advice, flags_of, flags_of_host, flags_of_processor
from vllm_wheels.core.host.topology import topology
from vllm_wheels.core.names import distributions
from vllm_wheels.core.operations.obtaining import way_to
from vllm_wheels.core.operations.running import Hint, documentation, hints

QUOTED = 160
"""Length at which a line of upstream's documentation is cut; JSON has all of it."""


@click.command("recommend", epilog="Example: ssh THERE cat /proc/cpuinfo | vllm-wheels recommend --flags -")
@click.option("--flags", metavar="FLAGS", help="Flags of another processor, or - for its /proc/cpuinfo on stdin.")
@click.option(
    "--cpu", metavar="NAME", shell_complete=completion.processors, help="Processor by gcc's or LLVM's name: znver4."
)
@click.option(
    "--release", metavar="VERSION", help="Whose documentation tells what else to set. [default: default_release]"
)
@click.option("-q", "--quiet", is_flag=True, help="Print the variant's name only.")
@options.json_option(what="the answer")
def command(*, flags: str | None, cpu: str | None, release: str | None, quiet: bool, json_file: Path | None) -> None:
    """Tell which variant suits a processor best, this one or another; of this one also what else makes vLLM fast.

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
        return
    wanted = release or options.read_settings().default_release
    told = _told(wanted) if flags is None and cpu is None else None
    if json_file:
        options.print_json(json_file, _plain(found, wanted, told))
    else:
        _show(found)
        _show_hints(wanted, told)


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


def _told(release: str) -> tuple[Hint, ...] | None:
    """What to set on this machine; nothing where the release's source is not here."""
    known = documentation(options.read_settings(), release)
    return hints(topology(), known) if known else ()


def _show_hints(release: str, told: tuple[Hint, ...] | None) -> None:
    if told is None:
        return
    if not told:
        options.say(f"what else vLLM {release} needs to be fast is in its source, which is not here until it is built")
        return
    options.say(f"to be fast, by the documentation of vLLM {release}:")
    for hint in told:
        options.say(f"  {hint.name}{'' if hint.value is None else f'={hint.value}'}: {hint.why}")
        quoted = textwrap.shorten(hint.upstream or "upstream says nothing about it", QUOTED, placeholder=" ...")
        options.say(f"      {quoted}")


def _plain(found: Advice, release: str, told: tuple[Hint, ...] | None) -> dict[str, object]:
    return {
        "schema_version": 1,
        "variant": found.variant.name,
        "distribution": distributions(options.read_settings())[found.variant.name],
        "lacks": {name: list(missing) for name, missing in found.above.items()},
        "release": release,
        "hints": None if told is None else [asdict(hint) for hint in told],
    }
