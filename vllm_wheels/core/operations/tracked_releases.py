"""Which targets are kept up to date: the newest registered releases, on the Pythons that they support."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from vllm_wheels.core.artifacts.source.planning import facts_of
from vllm_wheels.core.errors import IndexUnreachableError, SettingsError
from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.host import git
from vllm_wheels.core.index.releases import releases
from vllm_wheels.core.target import Target

if TYPE_CHECKING:
    from vllm_wheels.core.engine.store import Store
    from vllm_wheels.core.settings import Settings

HOUR = 3600


def newest(registered: Iterable[str], settings: Settings) -> list[str]:
    """The releases that are kept up to date, the newest first."""
    wanted = (name for name in registered if not excluded(name, settings))
    return sorted(wanted, key=Version, reverse=True)[: settings.automation.newest_releases]


def targets(registered: Iterable[str], *, pythons: Sequence[str], settings: Settings, store: Store) -> list[Target]:
    """Release and Python of everything that is kept up to date, the newest release first.

    Source trees of the store tell which Pythons a release supports; for other releases the index is asked.

    Raises:
        SettingsError: ``automation.exclude`` is wrong.
        IndexUnreachableError: a release is not in the store, and the index does not answer.
    """
    supported = _Supported(settings, store)
    wanted = [python for python in pythons if python in (settings.automation.pythons or pythons)]
    return [
        Target(release=release, python=python)
        for release in newest(registered, settings)
        for python in supported.pythons(release, wanted)
    ]


@dataclass(frozen=True, kw_only=True)
class Announced:
    """A release that may be built without anybody asking for it; None is what nobody says, as of a tag its date."""

    version: str
    requires_python: str | None
    uploaded: datetime | None


def announced(settings: Settings) -> list[Announced]:
    """Releases of the index, and by configuration git tags, that are not left out; the newest first.

    Raises:
        IndexUnreachableError: the index does not answer.
        GitUnreachableError: tags are asked for, and the repository cannot be read.
        SettingsError: ``automation.exclude`` is wrong, or tags are asked for that the source is not taken from.
    """
    wishes = settings.automation
    known = releases(settings)
    found = [
        Announced(version=release.version, requires_python=release.requires_python, uploaded=release.uploaded)
        for release in known
        if not release.yanked and (release.sdist is not None or settings.source.origin == "git")
    ]
    if wishes.git_tags:
        # What a tag asks for is known only once it is fetched; the newest release is the best guess until then.
        latest = known[-1].requires_python
        names = {release.version for release in known}
        found += [
            Announced(version=version, requires_python=latest, uploaded=None)
            for version in _tagged(settings)
            if version not in names
        ]
    wanted = [
        release
        for release in found
        if (wishes.prereleases or not Version(release.version).is_prerelease)
        and not excluded(release.version, settings)
    ]
    return sorted(wanted, key=lambda release: Version(release.version), reverse=True)


def old_enough(release: Announced, settings: Settings, *, first_seen: float, now: float) -> bool:
    """Has the release been there for ``automation.minimum_age_hours``; since first seen where nobody says."""
    since = release.uploaded.timestamp() if release.uploaded else first_seen
    return now - since >= settings.automation.minimum_age_hours * HOUR


def _tagged(settings: Settings) -> Iterator[str]:
    source = settings.source
    if source.origin != "git" or "{release}" not in source.git_ref:
        what = "automation.git_tags is set, but releases are not taken from git tags"
        why = f"source.origin is {source.origin} and source.git_ref is {source.git_ref}"
        raise SettingsError(what, why=why, remedy='set source.origin = "git", or automation.git_tags = false')
    before, _, after = source.git_ref.partition("{release}")
    for name in git.tags(git.address(source.git_url), timeout_seconds=settings.index.timeout_seconds):
        version = name.removeprefix(before).removesuffix(after)
        if name == f"{before}{version}{after}" and version_in(version):
            yield version


def excluded(release: str, settings: Settings) -> bool:
    """Is the release one of ``automation.exclude``.

    Raises:
        SettingsError: an entry is neither a version nor a range of versions.
    """
    return any(text.contains(release, prereleases=True) for text in _ranges(settings.automation.exclude))


def _ranges(texts: Sequence[str]) -> Iterator[SpecifierSet]:
    for text in texts:
        try:
            yield SpecifierSet(text if text[:1] in "<>=!~" else f"=={text}")
        except InvalidSpecifier as error:
            what = f"automation.exclude holds {text!r}"
            why = "an entry is a version such as 0.31.0 or a range such as <0.17"
            raise SettingsError(what, why=why, remedy="correct it in the settings") from error


class _Supported:
    """Asks the store first and the index, once, for what the store lacks."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._known = {artifact.inputs["release"]: facts_of(artifact).pythons for artifact in store.artifacts("source")}
        self._announced: dict[str, str | None] | None = None

    def pythons(self, release: str, wanted: Sequence[str]) -> list[str]:
        if release in self._known:
            return [python for python in wanted if python in self._known[release]]
        if self._announced is None:
            self._announced = self._ask()
        return [python for python in wanted if supports(self._announced.get(release), python)]

    def _ask(self) -> dict[str, str | None]:
        try:
            return {found.version: found.requires_python for found in releases(self._settings)}
        except IndexUnreachableError:
            # A git or local source does without an index; upstream's own check refuses a wrong Python then.
            if self._settings.source.origin == "index":
                raise
            return {}
