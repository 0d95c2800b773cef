"""Publishes the wheels of a release: gate, plans, test index, installation back, real index, receipts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm_wheels.core.engine.plan import ActionContext
from vllm_wheels.core.errors import (
    AlteredWheelError,
    ClockError,
    IncompleteReleaseError,
    PublicationError,
    UnknownRepositoryError,
)
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.http import CLOCK, Clock
from vllm_wheels.core.host.secrets import Secrets
from vllm_wheels.core.index.repositories import Repository, repository
from vllm_wheels.core.index.state import ProjectState, RemoteFile, project_state
from vllm_wheels.core.publish import receipt as receipts
from vllm_wheels.core.publish.attest import attestations
from vllm_wheels.core.publish.candidate import Candidate, candidates, required_variants
from vllm_wheels.core.publish.install_back import try_back
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels.core.publish.plan import ReleasePlan, release_plan
from vllm_wheels.core.publish.receipt import PublishedFile, Receipt
from vllm_wheels.core.publish.token import Credentials, credentials
from vllm_wheels.core.publish.upload import Sent, Upload
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import flagship

CLOCK_SECONDS = 300.0
"""How far this machine's clock may be from the index's: an OIDC identity of another time is refused."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A release on its way to one index."""

    repository: Repository
    plan: ReleasePlan  # what is to be done about each file
    remote: Mapping[str, RemoteFile]  # files that the index has, by name

    def lacking(self, release: Release) -> list[Candidate]:
        """The wheels of the release that are to be uploaded."""
        wanted = {file.file for file in self.plan.of_action("upload")}
        return [wheel for wheel in release.wheels if wheel.path.name in wanted]


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release that may be published: complete, verified, and compared with every index that it goes to."""

    name: str  # version of vLLM
    wheels: tuple[Candidate, ...]  # of all required variants, in the order of upload
    stages: tuple[Stage, ...]  # the test index, if one is set, and the real one


def repositories(settings: Settings, name: str | None = None) -> tuple[Repository, ...]:
    """The indexes that a release goes to, in order: the test index of the settings first.

    The real index is that of the name, else ``publish.repository``.
    """
    real = name or settings.publish.repository
    if real is None:
        what = "there is no repository to publish to"
        why = "publish.repository is not set"
        raise UnknownRepositoryError(what, why=why, remedy="set publish.repository, or give --repository")
    test = settings.publish.test_repository
    return tuple(repository(settings, each) for each in dict.fromkeys((test, real)) if each)


def prepare(settings: Settings, release: str, *, to: Iterable[Repository]) -> Release:
    """Draws up what publishing means; uploads nothing.

    Raises:
        PublicationError: or one of its kinds: the release is not complete, or not the verified one; the clock is wrong.
        VerificationError: a wheel has not passed.
        IndexUnreachableError: an index does not tell what it has.
    """
    wheels = candidates(settings, release, variants=required_variants(settings))
    return Release(name=release, wheels=wheels, stages=tuple(_stage(settings, release, wheels, each) for each in to))


def _stage(settings: Settings, release: str, wheels: tuple[Candidate, ...], to: Repository) -> Stage:
    names = frozenset(wheel.path.name for wheel in wheels)
    states = {
        project: project_state(to, project, timeout_seconds=settings.index.timeout_seconds, wanted=names)
        for project in dict.fromkeys(wheel.project for wheel in wheels)
    }
    now = datetime.now(UTC)
    _require_clock(to, states, now)
    plan = release_plan(
        wheels, states, repository=to, release=release, published_before=_journal(settings, to).listed(), now=now
    )
    remote = {name: file for state in states.values() for name, file in state.files.items()}
    return Stage(repository=to, plan=plan, remote=remote)


def _require_clock(to: Repository, states: Mapping[str, ProjectState], now: datetime) -> None:
    for state in states.values():
        if state.answered_at and abs((now - state.answered_at).total_seconds()) > CLOCK_SECONDS:
            what = "this machine's clock is wrong"
            why = f"it says {now:%Y-%m-%d %H:%M:%S} UTC, {to.name} says {state.answered_at:%Y-%m-%d %H:%M:%S} UTC"
            raise ClockError(what, why=why, remedy="set the clock (timedatectl set-ntp true), then run again")


def _journal(settings: Settings, to: Repository) -> Journal:
    return Journal(receipts.folder(settings.state_folder, to.name))


def _require_part_of(release: Release, chosen: Collection[str]) -> None:
    parts = dict.fromkeys(wheel.variant for wheel in release.wheels)
    if strange := [name for name in chosen if name not in parts]:
        what = f"{strange[0]} is not part of the release"
        why = f"publish.required_variants is {', '.join(parts)}"
        raise IncompleteReleaseError(what, why=why, remedy="choose one of these, or add it to required_variants")


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Carries a release out."""

    context: ActionContext  # settings, runner, builder and where to speak; its stage is a folder for temporary files
    secrets: Secrets = field(default_factory=Secrets)  # handed to uploading processes, and never read here
    clock: Clock = CLOCK

    def publish(self, release: Release, *, chosen: Collection[str]) -> tuple[Receipt, ...]:
        """Uploads what the indexes lack and returns a receipt for every chosen variant.

        Nothing is uploaded before every plan is possible, every token is there, and every index would take the files
        of every project of the release from us. Killed at any moment, it goes on when it is called again.

        Variants that were not chosen must have passed as well, and be there before the flagship comes.

        Raises:
            PublicationError: or one of its kinds.
            VerificationError: what came back from the test index does not work.
        """
        _require_part_of(release, chosen)
        for stage in release.stages:
            stage.plan.require_possible()
            self._require_order(release, stage, chosen)
        keys = self._keys(release)
        # All wheels, whatever was chosen: a part of a release that can never become whole is not begun.
        for stage in release.stages:
            for wheel in stage.lacking(release):
                self._upload(stage).preflight(wheel, keys[stage.repository.name, wheel.project])
                self.context.say(f"{stage.repository.name} would take files of {wheel.project} from us")
        tested: dict[str, Any] = {}
        given: tuple[Receipt, ...] = ()
        for number, stage in enumerate(release.stages):
            is_test = number + 1 < len(release.stages)
            given = self._stage(release, stage, chosen, keys, tested, is_test=is_test)
        return given

    def _require_order(self, release: Release, stage: Stage, chosen: Collection[str]) -> None:
        late = [each for each in stage.lacking(release) if each.variant not in {*chosen, flagship()}]
        if flagship() in chosen and late:
            what = f"{flagship()} is published last"
            why = f"{stage.repository.name} lacks {', '.join(each.path.name for each in late)}"
            remedy = f"vllm-wheels publish --release {release.name} --variant all"
            raise IncompleteReleaseError(what, why=why, remedy=remedy)

    def _keys(self, release: Release) -> dict[tuple[str, str], Credentials]:
        context = self.context
        return {
            (stage.repository.name, project): found
            for stage in release.stages
            for project, found in credentials(
                stage.repository,
                [wheel.project for wheel in stage.lacking(release)],
                settings=context.settings.publish,
                secrets=self.secrets,
                runner=context.runner,
            ).items()
        }

    def _upload(self, stage: Stage) -> Upload:
        return Upload(
            repository=stage.repository,
            journal=_journal(self.context.settings, stage.repository),
            runner=self.context.runner,
            settings=self.context.settings,
            say=self.context.say,
            clock=self.clock,
        )

    def _stage(
        self,
        release: Release,
        stage: Stage,
        chosen: Collection[str],
        keys: Mapping[tuple[str, str], Credentials],
        tested: dict[str, Any],
        *,
        is_test: bool,
    ) -> tuple[Receipt, ...]:
        given = []
        with _journal(self.context.settings, stage.repository).held():
            for name in dict.fromkeys(wheel.variant for wheel in release.wheels if wheel.variant in chosen):
                wheels = [wheel for wheel in release.wheels if wheel.variant == name]
                files = tuple(self._published(stage, wheel, keys) for wheel in wheels)
                if is_test:
                    tested[name] = self._tested(stage, wheels)
                receipt = Receipt(
                    release=release.name,
                    version=wheels[0].version,
                    variant=name,
                    project=wheels[0].project,
                    repository=stage.repository.name,
                    index=stage.repository.shown,
                    files=files,
                    tested=tested.get(name, {}),
                )
                given.append(receipts.keep(self.context.settings.state_folder, receipt))
        return tuple(given)

    def _published(self, stage: Stage, wheel: Candidate, keys: Mapping[tuple[str, str], Credentials]) -> PublishedFile:
        there = stage.remote.get(wheel.path.name)
        if there:
            sent = Sent(remote=there)
            journal = _journal(self.context.settings, stage.repository)
            if wheel.path.name not in journal.listed():
                journal.write("listed", wheel.path.name, wheel.sha256)
            self.context.say(f"{wheel.path.name} is on {stage.repository.name} already, with the same bytes")
        else:
            self.context.say(f"upload {wheel.path.name} to {stage.repository.name}")
            try:
                sent = self._sent(stage, wheel, keys[stage.repository.name, wheel.project])
            except PublicationError:
                self._tell_state(stage)
                raise
        uploaded = sent.remote.uploaded
        return PublishedFile(
            name=wheel.path.name,
            sha256=wheel.sha256,
            size=wheel.size,
            url=sent.remote.url.partition("#")[0],
            listed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            uploaded_at=uploaded.isoformat() if uploaded else None,
            answers=sent.answers,
            reports=wheel.reports,
            without=wheel.without,
        )

    def _tell_state(self, stage: Stage) -> None:
        listed = _journal(self.context.settings, stage.repository).listed()
        there = [file.file for file in stage.plan.files if file.file in listed]
        state = f"partial: {', '.join(there)}" if there else "empty"
        self.context.say(f"{stage.plan.version} on {stage.repository.name} is {state}; publish again to complete it")

    def _sent(self, stage: Stage, wheel: Candidate, key: Credentials) -> Sent:
        with TemporaryDirectory(prefix="outgoing-", dir=self.context.stage) as folder:
            # A copy that nobody writes to: what is hashed here is what is sent.
            copy = Path(shutil.copyfile(wheel.path, Path(folder, wheel.path.name)))
            if (found := sha256_of(copy)) != wheel.sha256:
                what = f"{wheel.path.name} was altered after it was verified"
                why = f"the report is of sha256 {wheel.sha256[:12]}, the file now has {found[:12]}"
                raise AlteredWheelError(what, why=why, remedy="build it again: it comes from the store within seconds")
            signed = attestations(
                copy, stage.repository, sha256=wheel.sha256, runner=self.context.runner, credentials=key
            )
            return self._upload(stage).send(wheel, copy, key, attestations=signed)

    def _tested(self, stage: Stage, wheels: Iterable[Candidate]) -> dict[str, Any]:
        """Verdicts by file; those of an earlier run on the same bytes are taken over."""
        wheels = list(wheels)
        key = {"version": wheels[0].version, "variant": wheels[0].variant}
        earlier = receipts.find(self.context.settings.state_folder, repository=stage.repository.name, **key)
        if earlier and earlier.tested and earlier.hashes == {wheel.path.name: wheel.sha256 for wheel in wheels}:
            return dict(earlier.tested)
        reports = {wheel.path.name: try_back(wheel, stage.repository, self.context) for wheel in wheels}
        return {"repository": stage.repository.name, "index": stage.repository.shown, "reports": reports}


def publishing_context(
    settings: Settings, *, runner: Any, find_builder: Callable[[], Any], say: Callable[[str], None]
) -> ActionContext:
    """A context whose stage is a folder for temporary files below the state folder."""
    stage = settings.state_folder / receipts.FOLDER / "work"
    stage.mkdir(parents=True, exist_ok=True)
    return ActionContext(stage=stage, settings=settings, runner=runner, find_builder=find_builder, say=say)
