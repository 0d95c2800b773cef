"""``vllm-wheels ui``."""

from __future__ import annotations

import click

from vllm_wheels.commands.options import read_settings, say, substitutes_option, target_of, target_options
from vllm_wheels.core.host.secrets import Secrets, refuse_secrets
from vllm_wheels.defs import home, partitions
from vllm_wheels.defs.services import LOOPBACK, services
from vllm_wheels.defs.web import SESSION_FILE, address


@click.command("ui", epilog="Example: vllm-wheels ui --port 3000")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Of the web UI.")
@target_options
@substitutes_option
@click.pass_obj
def command(
    secrets: Secrets, *, port: int, release: str | None, pythons: tuple[str, ...], allow_substitutes: bool
) -> None:
    """Start the web UI, schedules and sensors, reachable from this machine only; Ctrl-C ends them."""
    refuse_secrets("the web UI", secrets.names)
    settings = read_settings(allow_substitutes=allow_substitutes)
    target = target_of(settings, release=release, pythons=pythons)
    environment = home.environment(settings, target)
    partitions.register(home.instance(settings), target.release)
    session = home.prepare(settings) / SESSION_FILE
    with services(port=port, environment=environment, session=session, say=say) as running:
        opened = address(f"http://{LOOPBACK}:{port}", session)
        say(f"web UI: {opened} (Ctrl-C ends it; runs that are not finished go on at the next night)")
        running.watch()
