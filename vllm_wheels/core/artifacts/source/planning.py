"""Plans the source of a release: from the index, a git repository or a local folder, with what its tree demands."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.errors import (
    HashMismatchError,
    IndexUnreachableError,
    NetworkError,
    SettingsError,
    SourceError,
    UnknownReleaseError,
    UnsupportedPythonError,
)
from vllm_wheels.core.host import archives, git
from vllm_wheels.core.host.commands import STAGE, Download
from vllm_wheels.core.host.downloads import download as fetch_file
from vllm_wheels.core.index import releases
from vllm_wheels.core.patches.upstream import Upstream, read
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.texts import redacted

KIND = "source"
TAGS, BRANCHES = "refs/tags/", "refs/heads/"
TREE = f"{STAGE}/tree"
DOWNLOAD = f"{STAGE}/download"

DEMANDS = TypeAdapter(Upstream)
BYTES_PER_SECOND = 10e6
"""Guess of how fast a download is, for estimates."""


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """Arguments of ``download``: what to fetch, and the file to write."""

    wanted: Download
    file: str


@dataclass(frozen=True, kw_only=True)
class Unpacking:
    """Arguments of ``unpack``."""

    archive: str
    folder: str


@dataclass(frozen=True, kw_only=True)
class Cloning:
    """Arguments of ``clone``; the URL is without credentials."""

    url: str
    commit: git.Commit
    folder: str


@dataclass(frozen=True, kw_only=True)
class Copying:
    """Arguments of ``copy``; the hash is that of the tree that was planned with."""

    source: str
    folder: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Arguments of ``read_tree``."""

    tree: str
    release: str
    origin: Mapping[str, Any]
    deviations: tuple[str, ...]


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``source``.

    Its fact is ``tree_sha256``, with ``deviations`` from what upstream published; its details are ``upstream`` (see
    ``upstream_of``) and ``origin``. Where a server does not answer, an earlier source of the same release is taken.

    Raises:
        UnknownReleaseError: the index or the repository has no such release.
        SourceError: the release has no source archive, or the local tree is not of this release.
        NetworkError: a server does not answer, and the store has no such artifact.
        SettingsError: a setting that the origin needs is missing.
    """
    target, settings = context.target, context.settings
    match settings.source.origin:
        case "index":
            return _index_plan(target, settings, context.store)
        case "git":
            return _git_plan(target, settings, context.store)
        case "path":
            return _path_plan(target, settings)


def upstream_of(context: PlanContext) -> Upstream | None:
    """What the release's tree demands, of which the target's Python must be a part; None while it is not made."""
    source = context.known.get(KIND)
    if source is None:
        return None
    upstream = facts_of(source)
    require_python(upstream, context.target)
    return upstream


def facts_of(artifact: Artifact) -> Upstream:
    """What the tree of a finished artifact demands."""
    return DEMANDS.validate_python(artifact.details["upstream"])


def require_python(upstream: Upstream, target: Target) -> None:
    """Raises UnsupportedPythonError, which names the Pythons that the release supports, for any other one."""
    if target.python not in upstream.pythons:
        what = f"vLLM {upstream.release} does not support Python {target.python}"
        why = f"its pyproject.toml allows {', '.join(upstream.pythons)}"
        raise UnsupportedPythonError(what, why=why, remedy=f"choose one of them, such as {upstream.pythons[-1]}")


def kept(store: Store, kind: str, error: NetworkError, **inputs: Any) -> tuple[Artifact, str]:
    """The newest artifact in the store with the given inputs among its own, in place of a server that does not answer.

    Where there is none, ``error`` is raised again.

    Returns:
        The artifact, and what the user must be told.
    """
    for artifact in store.artifacts(kind):
        if inputs.items() <= artifact.inputs.items():
            return artifact, f"{error.what} ({error.why}); taken from the store instead: {kind} {artifact.key[:12]}"
    raise error


def copy_step(folder: Path, sha256: str) -> Step[Any]:
    """The step that copies a local folder to the stage's ``tree``."""
    return Step(
        title=f"copy {folder}",
        action=copy,
        arguments=Copying(source=str(folder), folder=TREE, sha256=sha256),
        reads=(str(folder),),
        writes=(TREE,),
        seconds=5,
    )


def clone_step(url: str, commit: git.Commit) -> Step[Any]:
    """The step that puts the files of a commit into the stage's ``tree``."""
    return Step(
        title=f"fetch {commit.ref} of {redacted(url)} (commit {commit.id[:12]})",
        action=clone,
        arguments=Cloning(url=redacted(url), commit=commit, folder=TREE),
        writes=(TREE,),
        downloads=(Download(url=redacted(url)),),
        seconds=60,
        invocations=git.commands(url=url, commit=commit, folder=TREE),
    )


def _index_plan(target: Target, settings: Settings, store: Store) -> Plan:
    try:
        release = releases.find(settings, target.release)
        archive = releases.archive_of(settings, release)
    except IndexUnreachableError as error:
        return _kept_plan(target, store, error, "filename", "sha256", origin="index", release=target.release)
    yanked = (f"vLLM {target.release} is yanked: its publisher advises against it",) if release.yanked else ()
    file = f"{DOWNLOAD}/{archive.filename}"
    wanted = Download(url=archive.url, size=archive.size, sha256=archive.sha256)
    steps = (
        Step(
            title=f"download {archive.filename}",
            action=download,
            arguments=Fetching(wanted=wanted, file=file),
            writes=(file,),
            downloads=(wanted,),
            seconds=(archive.size or 0) / BYTES_PER_SECOND,
        ),
        Step(
            title=f"unpack {archive.filename}",
            action=unpack,
            arguments=Unpacking(archive=file, folder=TREE),
            reads=(file,),
            writes=(TREE,),
            seconds=5,
        ),
    )
    inputs = {"filename": archive.filename, "sha256": archive.sha256}
    return _plan(target, inputs, steps, origin={"kind": "index", **asdict(archive)}, notices=yanked)


def _git_plan(target: Target, settings: Settings, store: Store) -> Plan:
    url = git.address(settings.source.git_url)
    template = settings.source.git_ref
    name = template.replace("{release}", target.release)
    known = {"url": redacted(url), "name": name}
    fixed = "{release}" not in template
    try:
        commit = git.resolve(url, name, timeout_seconds=settings.index.timeout_seconds)
    except NetworkError as error:
        return _kept_plan(target, store, error, *known, "commit", origin="git", release=target.release, **known)
    if commit is None:
        what = f"there is no {name} in the git repository {redacted(url)}"
        kind = SourceError if fixed else UnknownReleaseError
        raise kind(what, why="it has no such tag or branch", remedy="set source.git_ref to a tag or a full commit")
    deviations = (f"the source is commit {commit.id[:12]} by choice, not the release's own tag",) if fixed else ()
    if not fixed and commit.ref.startswith(BRANCHES):
        deviations = (f"the source is {name}, which is a branch of {redacted(url)}, not the release's own tag",)
    origin = {"kind": "git", **known, "ref": commit.ref, "commit": commit.id}
    inputs = {**known, "commit": commit.id}
    moved = _moved(store, known, commit) if commit.ref.startswith(TAGS) else ()
    return _plan(target, inputs, (clone_step(url, commit),), origin=origin, notices=moved, deviations=deviations)


def _moved(store: Store, known: Mapping[str, str], commit: git.Commit) -> tuple[str, ...]:
    """What the user must be told where the tag stood for another commit when the newest source of it was made."""
    earlier = next((each for each in store.artifacts(KIND) if known.items() <= each.inputs.items()), None)
    if earlier is None or earlier.inputs["commit"] == commit.id:
        return ()
    before, now = earlier.inputs["commit"][:12], commit.id[:12]
    return (f"tag {known['name']} of {known['url']} has moved: it was commit {before}, and is {now} now",)


def _kept_plan(target: Target, store: Store, error: NetworkError, *names: str, **certain: str) -> Plan:
    """The plan by which an earlier source, with these inputs, is taken once more.

    ``names`` are the inputs that tell one source of the release from another, ``certain`` are known without the server.
    """
    artifact, notice = kept(store, KIND, error, **certain)
    return _plan(
        target,
        {name: artifact.inputs[name] for name in names},
        (copy_step(artifact.folder / "tree", artifact.facts["tree_sha256"]),),
        origin=artifact.details["origin"],
        deviations=tuple(artifact.facts["deviations"]),
        notices=(notice,),
    )


def _path_plan(target: Target, settings: Settings) -> Plan:
    if settings.source.path is None:
        what = "source.origin is path, but source.path is not set"
        raise SettingsError(what, why="it must name an unpacked source tree", remedy="set source.path")
    folder = settings.source.path.expanduser().absolute()
    # Whatever is wrong with the tree is told before it is copied.
    archives.refuse_links_out(folder)
    read(folder, release=target.release)
    sha256 = archives.tree_hash(folder)
    origin = {"kind": "path", "path": str(folder)}
    deviations = ("the source is a local tree, not one that upstream published",)
    steps = (copy_step(folder, sha256),)
    return _plan(target, {"tree_sha256": sha256}, steps, origin=origin, deviations=deviations)


def _plan(
    target: Target,
    inputs: Mapping[str, Any],
    steps: tuple[Step[Any], ...],
    *,
    origin: Mapping[str, Any],
    notices: tuple[str, ...] = (),
    deviations: tuple[str, ...] = (),
) -> Plan:
    reading = Step(
        title=f"read what the source of vLLM {target.release} demands",
        action=read_tree,
        arguments=Reading(tree=TREE, release=target.release, origin=origin, deviations=deviations),
        reads=(TREE,),
        seconds=2,
    )
    return Plan(
        artifact=KIND,
        target=target.shared(),
        inputs={"origin": origin["kind"], "release": target.release, **inputs},
        steps=(*steps, reading),
        notices=(*notices, *(f"{line}: the wheel is not for release" for line in deviations)),
    )


def download(context: ActionContext, arguments: Fetching) -> None:
    """Downloads a file and checks its published size and hash; raises what ``host.downloads`` does."""
    fetch_file(arguments.wanted, context.path(arguments.file), settings=context.settings)


def unpack(context: ActionContext, arguments: Unpacking) -> None:
    """Unpacks the downloaded archive and removes it; raises what ``archives.unpack`` does."""
    archive = context.path(arguments.archive)
    archives.unpack(archive, context.path(arguments.folder))
    shutil.rmtree(archive.parent)


def clone(context: ActionContext, arguments: Cloning) -> None:
    """Puts the files of a commit into a folder; raises what ``git.fetch`` does."""
    settings, folder = context.settings, context.path(arguments.folder)
    # A plan is shown to people, so it leaves credentials out; the settings have them.
    named = (git.address(own) for own in (settings.source.git_url, settings.onednn.git_url) if own)
    real = next((own for own in named if redacted(own) == arguments.url), arguments.url)
    git.fetch(context.runner, url=real, commit=arguments.commit, folder=folder, invocations=context.staged())
    archives.refuse_links_out(folder)
    _refuse_submodules(folder, arguments)


def _refuse_submodules(folder: Path, arguments: Cloning) -> None:
    # git keeps no empty folders: what is empty after a checkout is the place of a submodule.
    empty = sorted(path for path, folders, files in os.walk(folder) if not folders and not files)
    if empty:
        what = f"{arguments.commit.ref} of {arguments.url} has submodules, which are not fetched"
        why = f"{', '.join(str(Path(path).relative_to(folder)) for path in empty)} would be empty"
        raise SourceError(what, why=why, remedy='set source.origin = "path", and source.path to a tree that has them')


def copy(context: ActionContext, arguments: Copying) -> None:
    """Copies a local tree; raises HashMismatchError where it is not the one that was planned with."""
    folder = context.path(arguments.folder)
    shutil.copytree(arguments.source, folder, symlinks=True, ignore=shutil.ignore_patterns(*archives.IGNORED))
    if archives.tree_hash(folder) != arguments.sha256:
        what = f"{arguments.source} changed while it was copied"
        raise HashMismatchError(what, why="its content is not what it was planned with", remedy="run the command again")


def read_tree(context: ActionContext, arguments: Reading) -> Made:
    """Reads what the tree demands; raises what ``upstream.read`` does."""
    folder = context.path(arguments.tree)
    demands = asdict(read(folder, release=arguments.release))
    return Made(
        facts={"tree_sha256": archives.tree_hash(folder), "deviations": arguments.deviations},
        details={"upstream": demands, "origin": arguments.origin},
    )
