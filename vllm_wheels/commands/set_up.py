"""``vllm-wheels set-up``."""

from __future__ import annotations

import click

from vllm_wheels.commands.options import milestone, read_settings, say
from vllm_wheels.core.builders.image import ensure_image, kinds
from vllm_wheels.core.operations.set_up import set_up


@click.command("set-up", epilog="Example: sudo vllm-wheels set-up")
@click.option("--image", type=click.Choice(kinds()), help="Then make this builder image, if it is not there.")
def command(*, image: str | None) -> None:
    """Install and start what building in a container needs on this machine."""
    settings = read_settings()
    set_up(settings, milestone)
    if image:
        wanted = settings.builder.model_copy(update={"image": image})
        made = ensure_image(settings.model_copy(update={"builder": wanted}), milestone)
        say(f"image {made.name} is there ({made.reference})")
