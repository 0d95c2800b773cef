"""The release plan: what of a release an index has, and what is to be done about each file, as data."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from packaging.version import Version

from vllm_wheels.core.errors import ConflictError, IndexRuleError, PublicationError
from vllm_wheels.core.index.repositories import Repository
from vllm_wheels.core.index.rules import Upload, broken_rules
from vllm_wheels.core.index.state import ProjectState
from vllm_wheels.core.publish.candidate import Candidate

Action = Literal["upload", "present", "conflict", "refused"]


@dataclass(frozen=True, kw_only=True)
class FilePlan:
    """What is to be done about one file."""

    variant: str
    project: str
    file: str
    sha256: str  # of the bytes that were verified
    size: int
    action: Action  # ``upload``; ``present`` with the same hash; ``conflict`` with other bytes; ``refused`` by a rule
    why: str = ""  # one line; empty for ``upload``
    rule: str = ""  # name of the rule that refuses
    tried: str = ""  # on which Pythons it has passed, and on which it could not be tried and why, in one line


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What publishing a release to one index means."""

    repository: str
    index: str  # its simple API
    release: str  # of vLLM
    version: str  # of the packages
    files: tuple[FilePlan, ...]  # in the order of upload, the flagship last
    next_version: str  # the release with the next ``.postN`` that is free in every project

    def of_action(self, *actions: Action) -> tuple[FilePlan, ...]:
        """The files with one of these actions."""
        return tuple(file for file in self.files if file.action in actions)

    @property
    def state(self) -> Literal["complete", "partial", "empty", "blocked"]:
        """How much of the release the index has; ``blocked`` if it can never have all."""
        if self.of_action("conflict", "refused"):
            return "blocked"
        present = self.of_action("present")
        return "complete" if len(present) == len(self.files) else "partial" if present else "empty"

    def as_json(self) -> dict[str, Any]:
        """The plan as plain JSON."""
        return {**asdict(self), "state": self.state}

    def require_possible(self) -> None:
        """Refuses a plan with which the release could not become complete."""
        for kind, action in ((ConflictError, "conflict"), (IndexRuleError, "refused")):
            found = [file for file in self.files if file.action == action]
            if found:
                raise self._refusal(kind, found)

    def _refusal(self, kind: type[PublicationError], found: Sequence[FilePlan]) -> PublicationError:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        what = f"{found[0].file} cannot be published to {self.repository}{more}"
        suffix = self.next_version.removeprefix(self.release)
        renew = f'set wheel.version_suffix = "{suffix}", then build and publish again: nothing compiles'
        curable = kind is ConflictError or found[0].rule in {"release-age", "deleted-name"}
        remedy = renew if curable else "correct what the rule names, then build again"
        return kind(what, why=found[0].why, remedy=remedy)


def release_plan(
    candidates: Iterable[Candidate],
    states: Mapping[str, ProjectState],
    *,
    repository: Repository,
    release: str,
    published_before: Collection[str],
    now: datetime,
) -> ReleasePlan:
    """Compares a release with what an index has.

    Candidates come in the order of upload; ``published_before`` are the files that receipts of this index name.
    """
    wheels = tuple(candidates)
    files = []
    for each in wheels:
        name, state = each.path.name, states[each.project]
        new = (other.size for other in wheels if other.project == each.project and other.path.name not in state.files)
        upload = Upload(
            name=name,
            size=each.size,
            metadata=each.metadata,
            project=state,
            growth=sum(new),
            published_before=name in published_before,
            now=now,
        )
        files.append(_file_plan(each, upload, public=repository.public_rules))
    return ReleasePlan(
        repository=repository.name,
        index=repository.shown,
        release=release,
        version=wheels[0].version,
        files=tuple(files),
        next_version=next_version(release, states.values()),
    )


def _file_plan(each: Candidate, upload: Upload, *, public: bool) -> FilePlan:
    planned = FilePlan(
        variant=each.variant,
        project=each.project,
        file=upload.name,
        sha256=each.sha256,
        size=each.size,
        action="upload",
        tried=each.tried,
    )
    if there := upload.project.files.get(upload.name):
        if there.sha256 == each.sha256:
            why = f"yanked: {there.yanked}" if there.yanked else "the same bytes are there"
            return replace(planned, action="present", why=why)
        why = f"the index has sha256 {there.sha256[:12]}, this file has {each.sha256[:12]}"
        return replace(planned, action="conflict", why=why)
    for rule, fault in broken_rules(upload) if public else ():
        return replace(planned, action="refused", why=f"{rule.says}: {fault}", rule=rule.name)
    return planned


def next_version(release: str, states: Iterable[ProjectState]) -> str:
    """The release with the lowest ``.postN`` above all that some project has, so that all can have the same."""
    base = str(Version(release))
    ours = re.compile(rf"{re.escape(base)}(?:\.post(\d+))?")
    versions = {file.version for state in states for file in state.files.values()}
    taken = [int(match[1] or 0) for version in versions if (match := ours.fullmatch(version))]
    return f"{base}.post{max(taken, default=0) + 1}"
