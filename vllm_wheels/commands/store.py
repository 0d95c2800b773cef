"""``vllm-wheels store``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from vllm_wheels.commands.options import json_option, print_json, read_settings, say
from vllm_wheels.core.errors import CommandLineError, UntrustedArtifactError
from vllm_wheels.core.host.signing import generate
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.operations.sharing import Moved, pull_all, push_all, remotes_of, verify_all

MEGABYTE = 1e6

kinds_option = click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Only artifacts of a kind; may be repeated. [default: all]"
)


@click.group("store", epilog="Example: vllm-wheels store list office")
def command() -> None:
    """Remote stores of artifacts, which several machines share."""


@command.command("list", epilog="Example: vllm-wheels store list office")
@click.argument("name")
@json_option(what="them")
def listing(*, name: str, json_file: Path | None) -> None:
    """List the artifacts of a remote store."""
    remotes = remotes_of(read_settings(), say)
    found = list(remotes.remote(name).listed())
    if json_file:
        rows = [
            {"kind": kind, "key": key, "bytes": each.size, "modified": each.modified.isoformat()}
            for kind, key, each in found
        ]
        print_json(json_file, {"schema_version": 1, "artifacts": rows})
        return
    for kind, key, each in found:
        say(f"{kind:<13} {key[:12]}  {each.size / MEGABYTE:8.1f} MB  {each.modified:%Y-%m-%d %H:%M}")
    say(f"{len(found)} artifacts, {sum(each.size for _, _, each in found) / MEGABYTE:.1f} MB")


@command.command("push", epilog="Example: vllm-wheels store push office --kind compiled")
@click.argument("name")
@kinds_option
def push(*, name: str, kinds: tuple[str, ...]) -> None:
    """Give a remote store what it lacks of the local one."""
    remotes = remotes_of(read_settings(), say)
    _sum_up(push_all(remotes, remotes.remote(name), _chosen(kinds)))


@command.command("pull", epilog="Example: vllm-wheels store pull office --kind wheel")
@click.argument("name")
@kinds_option
def pull(*, name: str, kinds: tuple[str, ...]) -> None:
    """Take from a remote store what the local one lacks."""
    settings = read_settings()
    remotes = remotes_of(settings, say)
    with remotes.store.in_use(wait_seconds=settings.builder.lock_seconds):
        wait = settings.builder.lock_seconds
        _sum_up(pull_all(remotes, remotes.remote(name), _chosen(kinds), wait_seconds=wait))


@command.command("verify", epilog="Example: vllm-wheels store verify office")
@click.argument("name")
def verify(*, name: str) -> None:
    """Read every artifact of a remote store whole, and tell which are not what they claim to be."""
    remotes = remotes_of(read_settings(), say)
    _sum_up(verify_all(remotes, remotes.remote(name)))


@command.command("keygen", epilog="Example: vllm-wheels store keygen keys/office.pem")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def keygen(*, path: Path) -> None:
    """Make a key to sign with; its name is that of the file."""
    try:
        key = generate(path)
    except FileExistsError as error:
        what = f"{path} is there already"
        raise CommandLineError(what, why="a key is never written over", remedy="name another file") from error
    say(f"{path} is the private key: name it in store.signing_key of the machine that pushes, and nowhere else")
    say("machines that take what it signed want:")
    say(f'[store.trusted_keys]\n{key.name} = "{key.public}"')


def _chosen(kinds: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [kind for kind in kinds if kind not in rules()]
    if unknown:
        what = f"{unknown[0]} is no kind of artifact"
        raise CommandLineError(what, why=f"kinds are {', '.join(rules())}", remedy="name one of these")
    return kinds or tuple(rules())


def _sum_up(moved: Iterable[Moved]) -> None:
    counts: Counter[str] = Counter()
    refused = []
    for each in moved:
        counts[each.outcome] += 1
        if each.outcome == "refused":
            refused.append(each)
            say(f"refused: {each.kind} {each.key[:12]}: {each.why}")
    say(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "nothing to do")
    if refused:
        what = f"{len(refused)} artifacts are not what they claim to be"
        raise UntrustedArtifactError(
            what, why=refused[0].why, remedy="remove them from the bucket, and push them again"
        )
