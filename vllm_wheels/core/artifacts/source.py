"""Artifact ``source``: the release's tree, from the index, a git repository or a local folder, and what it demands."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.plan import Action, ActionContext, Plan, Step
from vllm_wheels.core.engine.revisions import READING
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
from vllm_wheels.core.host.commands import STAGE, Download, Invocation
from vllm_wheels.core.host.downloads import download as fetch_file
from vllm_wheels.core.index import releases
from vllm_wheels.core.patches.upstream import Upstream, read
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.texts import redacted

KIND = "source"
TREE = f"{STAGE}/tree"
DOWNLOAD = f"{STAGE}/download"

BYTES_PER_SECOND = 10e6
"""Guess of how fast a download is, for estimates."""


def plan(target: Target, settings: Settings, store: Store) -> Plan:
    """The plan of artifact ``source``; the Python and the variant are not among its inputs.

    Its facts are ``upstream`` (see ``facts_of``), ``origin``, ``tree_sha256`` and ``deviations``.

    Args:
        target: names the release.
        settings: ``source`` and ``index`` apply.
        store: asked for an earlier artifact of the same release when a server does not answer; the plan then says so.

    Raises:
        UnknownReleaseError: the index or the repository has no such release.
        SourceError: the release has no source archive, or the local tree is not of this release.
        NetworkError: a server does not answer, and the store has no such artifact.
        SettingsError: a setting that the origin needs is missing.
    """
    match settings.source.origin:
        case "index":
            return _index_plan(target, settings, store)
        case "git":
            return _git_plan(target, settings, store)
        case "path":
            return _path_plan(target, settings)


def facts_of(artifact: Artifact) -> Upstream:
    """What the tree of a finished artifact demands."""
    facts = artifact.facts["upstream"]
    return Upstream(**{field.name: _tuples(facts[field.name]) for field in fields(Upstream)})


def require_python(upstream: Upstream, target: Target) -> None:
    """Refuses a Python that the release does not support.

    Raises:
        UnsupportedPythonError: names those that it does.
    """
    if target.python not in upstream.pythons:
        what = f"vLLM {upstream.release} does not support Python {target.python}"
        why = f"its pyproject.toml allows {', '.join(upstream.pythons)}"
        raise UnsupportedPythonError(what, why=why, remedy=f"choose one of them, such as {upstream.pythons[-1]}")


def kept(store: Store, kind: str, error: NetworkError, **inputs: Any) -> tuple[Artifact, str]:
    """The newest artifact in the store with the given inputs among its own, in place of a server that does not answer.

    Args:
        store: searched.
        kind: of the artifact.
        error: why the server cannot be asked; raised again where the store has no such artifact.
        inputs: what is certain without the server.

    Returns:
        The artifact, and what the user must be told.
    """
    for artifact in store.artifacts(kind):
        if inputs.items() <= artifact.inputs.items():
            return artifact, f"{error.what} ({error.why}); taken from the store instead: {kind} {artifact.key[:12]}"
    raise error


def copy_step(folder: Path, sha256: str) -> Step:
    """The step that copies a local folder to the stage's ``tree``."""
    return Step(
        title=f"copy {folder}",
        action="source.copy",
        arguments={"source": str(folder), "folder": TREE, "sha256": sha256},
        reads=(str(folder),),
        writes=(TREE,),
        seconds=5,
    )


def clone_step(url: str, commit: git.Commit) -> Step:
    """The step that puts the files of a commit into the stage's ``tree``."""
    return Step(
        title=f"fetch {commit.ref} of {redacted(url)} (commit {commit.id[:12]})",
        action="source.clone",
        arguments={"url": redacted(url), "ref": commit.ref, "commit": commit.id, "folder": TREE},
        writes=(TREE,),
        downloads=(Download(url=redacted(url)),),
        seconds=60,
        invocations=git.commands(url=url, commit=commit, folder=TREE),
    )


def _index_plan(target: Target, settings: Settings, store: Store) -> Plan:
    notices: tuple[str, ...] = ()
    try:
        release = releases.find(settings, target.release)
        archive = releases.archive_of(settings, release)
        if release.yanked:
            notices = (f"vLLM {target.release} is yanked: its publisher advises against it",)
    except IndexUnreachableError as error:
        artifact, notice = kept(store, KIND, error, origin="index", release=target.release, reading=READING)
        known = artifact.facts["origin"]
        archive = releases.SourceArchive(**{key: known[key] for key in ("filename", "url", "sha256", "size")})
        notices = (notice,)
    file = f"{DOWNLOAD}/{archive.filename}"
    wanted = Download(url=archive.url, size=archive.size, sha256=archive.sha256)
    steps = (
        Step(
            title=f"download {archive.filename}",
            action="source.download",
            arguments={**asdict(wanted), "file": file},
            writes=(file,),
            downloads=(wanted,),
            seconds=(archive.size or 0) / BYTES_PER_SECOND,
        ),
        Step(
            title=f"unpack {archive.filename}",
            action="source.unpack",
            arguments={"archive": file, "folder": TREE},
            reads=(file,),
            writes=(TREE,),
            seconds=5,
        ),
    )
    inputs = {"filename": archive.filename, "sha256": archive.sha256}
    return _plan(target, inputs, steps, origin={"kind": "index", **asdict(archive)}, notices=notices)


def _git_plan(target: Target, settings: Settings, store: Store) -> Plan:
    url = git.address(settings.source.git_url)
    template = settings.source.git_ref
    name = template.replace("{release}", target.release)
    notices: tuple[str, ...] = ()
    try:
        commit = git.resolve(url, name, timeout_seconds=settings.index.timeout_seconds)
    except NetworkError as error:
        known = {"origin": "git", "release": target.release, "url": redacted(url), "name": name, "reading": READING}
        artifact, notice = kept(store, KIND, error, **known)
        commit = git.Commit(id=artifact.inputs["commit"], ref=artifact.facts["origin"]["ref"])
        notices = (notice,)
    if commit is None:
        what = f"there is no {name} in the git repository {redacted(url)}"
        kind = UnknownReleaseError if "{release}" in template else SourceError
        raise kind(what, why="it has no such tag or branch", remedy="set source.git_ref to a tag or a full commit")
    fixed = f"the source is commit {commit.id[:12]} by choice, not the release's own tag"
    deviations = () if "{release}" in template else (fixed,)
    origin = {"kind": "git", "url": redacted(url), "name": name, "ref": commit.ref, "commit": commit.id}
    inputs = {"url": redacted(url), "name": name, "commit": commit.id}
    steps = (clone_step(url, commit),)
    return _plan(target, inputs, steps, origin=origin, notices=notices, deviations=deviations)


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
    steps: tuple[Step, ...],
    *,
    origin: Mapping[str, Any],
    notices: tuple[str, ...] = (),
    deviations: tuple[str, ...] = (),
) -> Plan:
    reading = Step(
        title=f"read what the source of vLLM {target.release} demands",
        action="source.read",
        arguments={"tree": TREE, "release": target.release, "origin": origin, "deviations": deviations},
        reads=(TREE,),
        seconds=2,
    )
    return Plan(
        artifact=KIND,
        target=target.shared(),
        inputs={"origin": origin["kind"], "release": target.release, "reading": READING, **inputs},
        steps=(*steps, reading),
        notices=(*notices, *(f"{line}: the wheel is not for release" for line in deviations)),
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def download(context: ActionContext, *, url: str, size: int | None, sha256: str | None, file: str) -> None:
    """Downloads a file and checks its published size and hash; raises what ``core.host.downloads`` does."""
    fetch_file(Download(url=url, size=size, sha256=sha256), context.path(file), settings=context.settings)


def unpack(context: ActionContext, *, archive: str, folder: str) -> None:
    """Unpacks the downloaded archive and removes it; raises what ``archives.unpack`` does."""
    archives.unpack(context.path(archive), context.path(folder))
    shutil.rmtree(context.path(archive).parent)


def clone(
    context: ActionContext, *, url: str, ref: str, commit: str, folder: str, invocations: tuple[Invocation, ...]
) -> None:
    """Puts the files of a commit into a folder; raises what ``git.fetch`` does."""
    settings = context.settings
    # A plan is shown to people, so it leaves credentials out; the settings have them.
    named = (git.address(own) for own in (settings.source.git_url, settings.onednn.git_url) if own)
    real = next((own for own in named if redacted(own) == url), url)
    git.fetch(
        context.runner,
        url=real,
        commit=git.Commit(id=commit, ref=ref),
        folder=context.path(folder),
        invocations=context.staged(invocations),
    )
    archives.refuse_links_out(context.path(folder))


def copy(context: ActionContext, *, source: str, folder: str, sha256: str) -> None:
    """Copies a local tree.

    Raises:
        HashMismatchError: it is not the tree that was planned with.
    """
    shutil.copytree(source, context.path(folder), symlinks=True, ignore=shutil.ignore_patterns(*archives.IGNORED))
    if archives.tree_hash(context.path(folder)) != sha256:
        what = f"{source} changed while it was copied"
        raise HashMismatchError(what, why="its content is not what it was planned with", remedy="run the command again")


def read_tree(
    context: ActionContext, *, tree: str, release: str, origin: Mapping[str, Any], deviations: tuple[str, ...]
) -> Mapping[str, Any]:
    """Reads what the tree demands; raises what ``upstream.read`` does."""
    folder = context.path(tree)
    return {
        "upstream": asdict(read(folder, release=release)),
        "origin": origin,
        "tree_sha256": archives.tree_hash(folder),
        "deviations": deviations,
    }


ACTIONS: Mapping[str, Action] = {
    "source.download": download,
    "source.unpack": unpack,
    "source.clone": clone,
    "source.copy": copy,
    "source.read": read_tree,
}
