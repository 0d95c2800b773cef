"""Tab completion: click's own for bash, zsh and fish, and the values of variants and releases."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from packaging.version import Version

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.host.processors import names
from vllm_wheels.core.operations.release_names import noted
from vllm_wheels.core.variants import variants

PROGRAM = "vllm-wheels"
VARIABLE = "_VLLM_WHEELS_COMPLETE"

RECOMMENDED = "recommended"
"""In place of a variant: the best for this machine's processor."""

ACTIVATION = {
    "bash": '# put into ~/.bashrc: eval "$(vllm-wheels completion bash)"',
    "zsh": '# put into ~/.zshrc: eval "$(vllm-wheels completion zsh)"',
    "fish": "# put into ~/.config/fish/config.fish: vllm-wheels completion fish | source",
}


@click.command("completion", epilog='Example: eval "$(vllm-wheels completion bash)"')
@click.argument("shell", type=click.Choice(list(ACTIVATION)))
def command(*, shell: str) -> None:
    """Print the script by which the tab key completes commands, options and values."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows these three
    # The shell itself asks later, through the variable; the script needs no command line of ours.
    script = kind(click.Command(PROGRAM), {}, PROGRAM, VARIABLE)
    click.echo(ACTIVATION[shell])
    click.echo(script.source_template % script.source_vars())


def variants_or_all(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of variants and of their distributions, and the words that stand for some."""
    known = variants()
    return _beginning([*known, "all", RECOMMENDED, *(each.distribution for each in known.values())], incomplete)


def processors(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of processors."""
    return _beginning(names(), incomplete)


def releases(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Releases that are registered here, the newest first, and the default one."""
    try:
        settings = configuration.load()
    except VllmWheelsError:
        # What is wrong with the settings is said when the command runs, not while it is typed.
        return []
    home = Path(os.environ.get("DAGSTER_HOME") or settings.state_folder / "dagster")
    found = {settings.default_release, *noted(home)}
    return _beginning(sorted(found, key=lambda text: version_in(text) or Version("0"), reverse=True), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
