"""``vllm-wheels rebuild``."""

from __future__ import annotations

from pathlib import Path

import click

from vllm_wheels.commands.options import milestone, read_settings, say
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.operations.rebuild import read_statement
from vllm_wheels.core.operations.rebuild import rebuild as make_again


@click.command("rebuild", epilog="Example: vllm-wheels rebuild wheels/vllm_cpu-0.32.0-....intoto.json")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--compiler-cache", is_flag=True, help="Take compiled objects from the compiler's cache: minutes, not hours."
)
def command(*, file: Path, compiler_cache: bool) -> None:
    """Make a wheel again from its statement (or the one beside the wheel), and compare the bytes."""
    settings = read_settings()
    with Store(settings.state_folder / "store").in_use(wait_seconds=settings.builder.lock_seconds):
        rebuilt = make_again(
            read_statement(file), settings, say=milestone, echo=milestone, compiler_cache=compiler_cache
        )
    say(f"the same bytes: {rebuilt.path.name} sha256 {rebuilt.sha256}")
