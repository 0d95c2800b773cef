"""What a person does with a remote store: look into it, fill it, take from it, check it, clear it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from vllm_wheels.core.engine.remotes import Remote, Remotes
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.errors import UnsafeArchiveError, UntrustedArtifactError
from vllm_wheels.core.host.objects import Listed

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What became of one artifact on its way."""

    kind: str
    key: str
    outcome: Literal["given", "taken", "there already", "refused", "sound"]
    why: str = ""


def remotes_of(settings: Settings, say: Callable[[str], None]) -> Remotes:
    """The remote stores of the settings, for a command."""
    return Remotes(settings=settings.store, store=Store(settings.state_folder / "store"), failed=set(), say=say)


def push_all(remotes: Remotes, remote: Remote, kinds: Sequence[str]) -> Iterator[Moved]:
    """Gives a remote every artifact of some kinds that it lacks; raises RemoteStoreError where it does not answer."""
    there = {(kind, key) for kind, key, _ in remote.listed()}
    for kind in kinds:
        for artifact in remotes.store.artifacts(kind):
            yield _pushed(remotes, remote, artifact, is_there=(kind, artifact.key) in there)


def _pushed(remotes: Remotes, remote: Remote, artifact: Artifact, *, is_there: bool) -> Moved:
    kind, key = artifact.kind, artifact.key
    try:
        given = not is_there and remotes.push_to(remote, artifact)
    except UnsafeArchiveError as error:
        return Moved(kind=kind, key=key, outcome="refused", why=error.why)
    return Moved(kind=kind, key=key, outcome="given" if given else "there already")


def pull_all(remotes: Remotes, remote: Remote, kinds: Sequence[str], *, wait_seconds: float) -> Iterator[Moved]:
    """Takes from a remote every artifact of some kinds that the local store lacks."""
    for kind, key, _ in remote.listed():
        if kind not in kinds:
            continue
        if remotes.store.find(kind, key):
            yield Moved(kind=kind, key=key, outcome="there already")
            continue
        try:
            with remotes.store.making(kind, key, wait_seconds=wait_seconds) as stage:
                remotes.fetch(remote, kind, key, stage)
        except (UntrustedArtifactError, UnsafeArchiveError) as error:
            yield Moved(kind=kind, key=key, outcome="refused", why=error.why)
        else:
            yield Moved(kind=kind, key=key, outcome="taken")


def verify_all(remotes: Remotes, remote: Remote) -> Iterator[Moved]:
    """Reads every artifact of a remote whole: its signature, its name, its hashes, and that it can be unpacked."""
    for kind, key, _ in remote.listed():
        try:
            remotes.verify(remote, kind, key)
        except (UntrustedArtifactError, UnsafeArchiveError) as error:
            yield Moved(kind=kind, key=key, outcome="refused", why=error.why)
        else:
            yield Moved(kind=kind, key=key, outcome="sound")


def removable(remotes: Remotes, remote: Remote, *, days: float) -> list[Listed]:
    """Objects of a remote that are older than some days, and that nothing younger was made from.

    What cannot be believed refers to nothing, and goes when it is old.
    """
    since = datetime.now(UTC) - timedelta(days=days)
    listed = list(remote.listed())
    referred: set[tuple[str, str]] = set()
    for kind, key, each in listed:
        if each.modified >= since:
            referred |= _made_from(remotes, remote, kind, key)
    return [each for kind, key, each in listed if each.modified < since and (kind, key) not in referred]


def _made_from(remotes: Remotes, remote: Remote, kind: str, key: str) -> set[tuple[str, str]]:
    try:
        manifest = remotes.manifest(remote, kind, key)
    except UntrustedArtifactError:
        return set()
    return set(manifest.record["made_from"].items()) if manifest else set()
