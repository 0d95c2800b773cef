"""``vllm-wheels ui``."""

from __future__ import annotations

import click

from vllm_wheels.commands.options import read_settings, say, substitutes_option, target_of, target_options
from vllm_wheels.core.host.secrets import Secrets, refuse_secrets
from vllm_wheels.defs import home, partitions
from vllm_wheels.defs.services import listening, only_one, services
from vllm_wheels.defs.web import SESSION_FILE, address

UI_URL = "VLLM_WHEELS_NOTIFICATION__UI_URL"
"""Variable by which runs and sensors learn the address for their messages."""


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
    prepared = home.prepare(settings)
    with only_one(prepared, port):
        origin = listening(port)
        environment = {**home.environment(settings, target), UI_URL: settings.notification.ui_url or origin}
        partitions.register(home.instance(settings), target.release, target.python)
        session = prepared / SESSION_FILE
        with services(port=port, environment=environment, session=session, say=say) as running:
            opened = address(origin, session)
            say(f"web UI: {opened} (Ctrl-C ends it; runs that are not finished go on at the next night)")
            running.watch()
