"""Remote stores behind the local one: look here, then there; fetch instead of make; push after making.

Several machines share them, and nothing but the network. A remote that fails is left alone for the rest of a run, and
said once: a build is slower without it and comes out the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from vllm_wheels.core.engine import sealed
from vllm_wheels.core.engine.store import CURRENT_LAYOUT, Artifact, Store
from vllm_wheels.core.errors import RemoteStoreError, SettingsError, UnsafeArchiveError, UntrustedArtifactError
from vllm_wheels.core.host.objects import Listed, Objects, objects
from vllm_wheels.core.host.signing import SigningKey, read_key
from vllm_wheels.core.sections import RemoteSettings, StoreSettings

LAYOUT = f"layout-{CURRENT_LAYOUT}"
MEGABYTE = 1e6


@dataclass(frozen=True)
class Remote:
    """One remote store."""

    name: str
    settings: RemoteSettings

    @cached_property
    def objects(self) -> Objects:
        """Where its artifacts are."""
        limit = self.settings
        return objects(limit.url, answer_seconds=limit.timeout_seconds, transfer_seconds=limit.transfer_seconds)

    def listed(self) -> Iterator[tuple[str, str, Listed]]:
        """Kind and key of each artifact, with the object that it is."""
        for each in self.objects.listed():
            layout, _, rest = each.name.partition("/")
            kind, _, key = rest.partition("/")
            if layout == LAYOUT and key:
                yield kind, key, each


@dataclass(frozen=True, kw_only=True)
class Remotes:
    """The remote stores of the settings, in order.

    Attributes:
        store: the local one.
        failed: names of those that are left alone; shared by all that work on one run.
        say: told what is fetched and pushed, and what went wrong.
    """

    settings: StoreSettings
    store: Store
    failed: set[str]
    say: Callable[[str], None]

    @cached_property
    def _known(self) -> tuple[Remote, ...]:
        known = tuple(Remote(name, each) for name, each in self.settings.remotes.items())
        for remote in known:
            _ = remote.objects
        what = "the settings of the remote stores do not go together"
        remedy = "make a key with vllm-wheels store keygen"
        if any(each.settings.push for each in known) and self.settings.signing_key is None:
            why = "one is pushed to, and there is no store.signing_key"
            raise SettingsError(what, why=why, remedy=remedy)
        if any(each.settings.read for each in known) and not self.trusted:
            why = "one is read, and no key is in store.trusted_keys"
            raise SettingsError(what, why=why, remedy=remedy)
        return known

    @cached_property
    def signing_key(self) -> SigningKey:
        """The key of this machine; SettingsError where it has none."""
        if self.settings.signing_key is None:
            what = "nothing can be pushed"
            remedy = "make a key with vllm-wheels store keygen, and name it there"
            raise SettingsError(what, why="store.signing_key names no key", remedy=remedy)
        return read_key(self.settings.signing_key)

    @cached_property
    def trusted(self) -> Mapping[str, str]:
        """Public keys by name: those of the settings, and this machine's own."""
        own = {self.signing_key.name: self.signing_key.public} if self.settings.signing_key else {}
        return {**own, **self.settings.trusted_keys}

    def remote(self, name: str) -> Remote:
        """The remote store of a name; SettingsError where the settings have none."""
        found = next((each for each in self._known if each.name == name), None)
        if found is None:
            what = f"there is no remote store {name!r}"
            why = f"store.remotes has {', '.join(self.settings.remotes) or 'none'}"
            raise SettingsError(what, why=why, remedy="name one of these, or describe it there")
        return found

    def fetched(self, kind: str, key: str, *, wait_seconds: float) -> Artifact | None:
        """The artifact from the first remote that has it and is to be read, now in the local store; None without one.

        What is refused is said, and is made here.

        Raises:
            StoreBusyError: another process was making it for ``wait_seconds``.
        """
        readable = [each for each in self._known if each.settings.read and each.name not in self.failed]
        if not readable:
            return None
        with self.store.making(kind, key, wait_seconds=wait_seconds, say=self.say) as stage:
            if found := self.store.find_whole(kind, key):
                return found
            for remote in readable:
                with self._forgiven(remote):
                    if found := self.fetch(remote, kind, key, stage):
                        return found
        return None

    def fetch(self, remote: Remote, kind: str, key: str, stage: Path) -> Artifact | None:
        """The artifact from one remote, by way of a staging folder; None where it has none.

        Raises:
            RemoteStoreError: it does not answer.
            UntrustedArtifactError: what it has is unsigned, altered or another artifact.
            UnsafeArchiveError: what it has cannot be unpacked.
        """
        with self._opened(remote, kind, key, stage.parent) as opened:
            if opened is None:
                return None
            manifest, packed = opened
            self.say(f"taking {kind} from the remote store {remote.name} ({manifest.size / MEGABYTE:.1f} MB)")
            shutil.rmtree(stage, ignore_errors=True)
            sealed.unpack(manifest, packed, stage)
        return self.store.take(stage, kind, key, manifest.record)

    def verify(self, remote: Remote, kind: str, key: str) -> sealed.Manifest | None:
        """Reads an object of a remote whole, and unpacks it, without keeping it; raises what ``fetch`` does."""
        with TemporaryDirectory() as folder, self._opened(remote, kind, key, Path(folder)) as opened:
            if opened is None:
                return None
            manifest, packed = opened
            sealed.unpack(manifest, packed, Path(folder, "unpacked"))
            return manifest

    def manifest(self, remote: Remote, kind: str, key: str) -> sealed.Manifest | None:
        """What an object of a remote says of itself, signed; None where there is none; raises what ``fetch`` does."""
        with remote.objects.read(_name(kind, key)) as chunks:
            return sealed.opened(chunks, kind=kind, key=key, trusted=self.trusted)[0] if chunks else None

    def push(self, artifact: Artifact) -> None:
        """Gives an artifact to every remote that is pushed to; a failure is only said."""
        wanted = [each for each in self._known if each.settings.push and each.name not in self.failed]
        if not wanted:
            return
        try:
            with self._sealed(artifact) as path:
                for remote in wanted:
                    with self._forgiven(remote):
                        self._created(remote, artifact, path)
        except (UnsafeArchiveError, OSError) as error:
            why = error.why if isinstance(error, UnsafeArchiveError) else error.strerror
            self.say(f"NOTICE: {artifact.kind} is given to no remote store: {why}")

    def push_to(self, remote: Remote, artifact: Artifact) -> bool:
        """Gives an artifact to one remote; False where that has one of the name, which stays as it is.

        Raises:
            RemoteStoreError: it does not answer, or refuses.
            UnsafeArchiveError: nobody could unpack it again.
        """
        with self._sealed(artifact) as path:
            return self._created(remote, artifact, path)

    def _created(self, remote: Remote, artifact: Artifact, path: Path) -> bool:
        created = remote.objects.create(_name(artifact.kind, artifact.key), path)
        if created:
            size = path.stat().st_size / MEGABYTE
            self.say(f"gave {artifact.kind} to the remote store {remote.name} ({size:.1f} MB)")
        return created

    @contextmanager
    def _sealed(self, artifact: Artifact) -> Iterator[Path]:
        staging = self.store.root / "staging"
        staging.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=staging) as folder:
            path = Path(folder, "object")
            sealed.seal(artifact, path, self.signing_key)
            yield path

    @contextmanager
    def _opened(
        self, remote: Remote, kind: str, key: str, folder: Path
    ) -> Iterator[tuple[sealed.Manifest, Path] | None]:
        with TemporaryDirectory(dir=folder) as beside:
            packed = Path(beside, "object.tar.zst")
            with remote.objects.read(_name(kind, key)) as chunks:
                found = chunks and sealed.unseal(chunks, packed, kind=kind, key=key, trusted=self.trusted)
            yield (found, packed) if found else None

    @contextmanager
    def _forgiven(self, remote: Remote) -> Iterator[None]:
        try:
            yield
        except RemoteStoreError as error:
            self.failed.add(remote.name)
            self.say(f"NOTICE: the remote store {remote.name} is left alone in this run: {error.what} ({error.why})")
        except (UntrustedArtifactError, UnsafeArchiveError) as error:
            self.say(f"NOTICE: {error.what}, in {remote.name}: {error.why}; it is made here")


def _name(kind: str, key: str) -> str:
    return f"{LAYOUT}/{kind}/{key}"
