"""What several subcommands share: options, settings, and how errors and milestones are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from rich.console import Console

from vllm_wheels.commands import completion
from vllm_wheels.commands.typed import as_typed
from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import CommandLineError
from vllm_wheels.core.host.files import write_atomically
from vllm_wheels.core.host.processors import advice, flags_of_host
from vllm_wheels.core.target import Target
from vllm_wheels.core.texts import shown
from vllm_wheels.core.variants import variant as variant_named
from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from vllm_wheels.core.errors import VllmWheelsError
    from vllm_wheels.core.settings import Settings

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)

Command = Callable[..., Any]

STANDARD_OUTPUT = "-"

LOUD = ("NOTICE: ", "SUBSTITUTE: ")
"""What is said also to whoever asked for silence."""


@dataclass
class Verbosity:
    """How much this command says."""

    quiet: bool = False
    verbose: bool = False


VERBOSITY = Verbosity()


def explain(error: VllmWheelsError) -> int:
    """Prints an error's three lines on standard error and returns its exit code."""
    ERR.print(f"error: {as_typed(str(error))}", markup=False)
    return error.exit_code


def say(line: str) -> None:
    """Prints a result, which may quote an index, a tool or a wheel."""
    OUT.print(shown(as_typed(line)), markup=False)


def milestone(line: str) -> None:
    """Prints what is being done, unless --quiet was given."""
    if not VERBOSITY.quiet or line.startswith(LOUD):
        say(line)


def print_json(file: Path, data: object) -> None:
    """Writes JSON to a file, or for ``-`` to standard output."""
    text = json.dumps(data, indent=1) + "\n"
    if str(file) == STANDARD_OUTPUT:
        click.echo(text, nl=False)
    else:
        write_atomically(file.absolute(), text)


def _make_way(_context: click.Context, _parameter: click.Parameter, file: Path | None) -> Path | None:
    """Sends everything but the JSON to standard error where the JSON goes to standard output."""
    OUT.stderr = str(file) == STANDARD_OUTPUT
    return file


def json_option(*names: str, what: str) -> Callable[[Command], Command]:
    """The option by which a command writes JSON to a file, or without a value to standard output."""
    return click.option(
        *("--json", *names),
        "json_file",
        is_flag=False,
        flag_value=STANDARD_OUTPUT,
        metavar="[FILE]",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        callback=_make_way,
        help=f"Write {what} as JSON to a file, or to standard output.",
    )


def is_interactive() -> bool:
    """Is there a person at a terminal who could answer a question?"""
    return sys.stdin is not None and sys.stdin.isatty() and OUT.is_terminal


def _all(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order in which the help lists them."""

    def decorate(command: Command) -> Command:
        for each in reversed(decorators):
            command = each(command)
        return command

    return decorate


variant_option = click.option(
    "--variant",
    "chosen",
    multiple=True,
    required=True,
    metavar="NAME",
    shell_complete=completion.variants_or_all,
    help="Variant, its distribution, all, or recommended for this processor; may be repeated.",
)
target_options = _all(
    click.option(
        "--release",
        "--vllm-version",
        "release",
        metavar="VERSION",
        shell_complete=completion.releases,
        help="Release of vLLM. [default: default_release]",
    ),
    click.option(
        "--python-version", "pythons", multiple=True, metavar="X.Y", help="Python, also several. [default: this one]"
    ),
)


def json_file_option(*, what: str) -> Callable[[Command], Command]:
    """As ``json_option``, for commands with arguments, of which an option without a value would take the first."""
    return click.option(
        "--json",
        "json_file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        callback=_make_way,
        help=f"Write {what} as JSON to a file, or with - to standard output.",
    )


def with_verbosity(command: click.Command) -> click.Command:
    """Gives a command, and those of a group, --quiet and --verbose."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            with_verbosity(each)
        return command
    known = {name for parameter in command.params for name in parameter.opts}
    command.params += [option for option in _verbosity_options() if not known.intersection(option.opts)]
    return command


def _verbosity_options() -> list[click.Option]:
    def remember(_context: click.Context, parameter: click.Parameter, given: bool) -> None:  # noqa: FBT001 - click's
        setattr(VERBOSITY, str(parameter.name), given)

    texts = {"quiet": "Print results and errors only.", "verbose": "Print every line of the compiler."}
    return [
        click.Option([f"-{name[0]}", f"--{name}"], is_flag=True, expose_value=False, callback=remember, help=text)
        for name, text in texts.items()
    ]


plan_json_option = json_option("--dry-run-json", what="the plans")
substitutes_option = click.option(
    "--allow-substitutes", is_flag=True, help="Take substitutes for official artifacts out of reach."
)
wheel_options = _all(
    variant_option,
    target_options,
    click.option("--max-jobs", type=click.IntRange(min=1), metavar="N", help="Parallel compile jobs."),
    click.option("--output-dir", type=click.Path(path_type=Path), help="Where finished wheels are put."),
    click.option("--no-cleanup", is_flag=True, help="Leave the build folder behind."),
    click.option("--no-verify", is_flag=True, help="Stop after the wheel, without trying it."),
)
"""What is built, and how a single build differs from the settings."""


class Asked(TypedDict):
    """What ``wheel_options`` and ``substitutes_option`` were given."""

    chosen: tuple[str, ...]
    release: str | None
    pythons: tuple[str, ...]
    max_jobs: int | None
    output_dir: Path | None
    no_cleanup: bool
    no_verify: bool
    allow_substitutes: bool


def wheels_of(asked: Asked) -> tuple[Settings, list[Target], tuple[str, ...]]:
    """The settings with what the options of one build change, the wheels, and the kinds of artifacts to make."""
    settings = configuration.changed(
        read_settings(allow_substitutes=asked["allow_substitutes"]),
        max_jobs=asked["max_jobs"],
        output_folder=asked["output_dir"],
        keep_build_folder=asked["no_cleanup"] or None,
    )
    names = variant_names(asked["chosen"], settings)
    releases = targets_of(settings, release=asked["release"], pythons=asked["pythons"])
    wheels = [replace(target, variant=name) for target in releases for name in names]
    return settings, wheels, ("wheel",) if asked["no_verify"] else ("wheel", "verification")


def read_settings(*, allow_substitutes: bool = False) -> Settings:
    """The user's settings, with what the command line adds."""
    if allow_substitutes:
        # Through the environment, so that Dagster's own processes read the same settings.
        os.environ["VLLM_WHEELS_SUBSTITUTES"] = "allow"
    return configuration.load()


def this_python() -> str:
    """Version of the Python that runs this, without the micro part."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def targets_of(settings: Settings, *, release: str | None, pythons: Sequence[str]) -> list[Target]:
    """The targets that the options name, one for each Python, with the defaults filled in."""
    wanted = _required(pythons, "--python-version", "a Python such as 3.12") if pythons else [this_python()]
    return [Target(release=release or settings.default_release, python=python) for python in wanted]


def target_of(settings: Settings, *, release: str | None, pythons: Sequence[str] = ()) -> Target:
    """The target that the options name; of several Pythons the first."""
    return targets_of(settings, release=release, pythons=pythons)[0]


def variant_names(chosen: Sequence[str], settings: Settings) -> list[str]:
    """Variants in the order named, by name or distribution; ``all`` is every one, ``recommended`` this processor's.

    Raises:
        UnknownVariantError: no variant has the name.
        UnsupportedProcessorError: the recommended one is asked for, and this processor runs none.
        CommandLineError: none is named.
    """
    named = _required(chosen, "--variant", "a variant, all or recommended")
    if "all" in named:
        return list(variants())
    own = {distribution: name for name, distribution in settings.wheel.distributions.items()}
    found = (
        advice(flags_of_host()).variant if name == completion.RECOMMENDED else variant_named(own.get(name, name))
        for name in named
    )
    return list(dict.fromkeys(each.name for each in found))


def _required(values: Sequence[str], option: str, what: str) -> list[str]:
    found = _listed(values)
    if not found:
        nothing = f"{option} names nothing"
        raise CommandLineError(nothing, why=f"its value is {values[0]!r}", remedy=f"name {what}")
    return found


def _listed(values: Sequence[str]) -> list[str]:
    """Values that were repeated, or written with commas as the scripts of old took them."""
    parts = (part.strip() for value in values for part in value.split(","))
    return list(dict.fromkeys(part for part in parts if part))
