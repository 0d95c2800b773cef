"""Artifact ``onednn``: the oneDNN source that goes into the wheel: the release's pin, Debian's, or a local tree."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vllm_wheels.core.artifacts.source import BYTES_PER_SECOND, DOWNLOAD, TREE, clone_step, copy_step, kept
from vllm_wheels.core.builders import apt
from vllm_wheels.core.engine.plan import Action, ActionContext, Plan, Step
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.errors import GitUnreachableError, HashMismatchError, NetworkError, SettingsError, SourceError
from vllm_wheels.core.host import archives, git
from vllm_wheels.core.host.commands import Download, Invocation
from vllm_wheels.core.patches.upstream import Upstream
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.texts import redacted

KIND = "onednn"
DEBIAN_PACKAGE = "onednn"
ANCHOR = "include/oneapi/dnnl/dnnl.h"
VERSION = re.compile(r'(?:set\s*\(\s*PROJECT_VERSION|project\s*\([^)]*\bVERSION)\s+"?(\d[\w.]*)')
NOT_FOR_RELEASE = "this wheel is not for release"
UNPACK_SECONDS = 600.0

REMEDY = 'set onednn.origin to "debian" or "path", name a mirror in onednn.git_url, or give --allow-substitutes'


def plan(target: Target, upstream: Upstream, settings: Settings, store: Store) -> Plan:
    """The plan of artifact ``onednn``; the Python and the variant are not among its inputs.

    Its facts are ``onednn`` (``version``, ``origin``, ``pinned``, ``deviates``, ``notices``, where it came from),
    ``tree_sha256`` and ``deviations``.

    Args:
        target: names the release.
        upstream: has the pin.
        settings: ``onednn`` and ``substitutes`` apply.
        store: asked for an earlier artifact of the pin when the git host does not answer; the plan then says so.

    Raises:
        GitUnreachableError: the git host does not answer, the store has no such artifact, and substitutes are refused.
        NetworkError: Debian's mirror does not answer.
        SourceError: the repository has no such tag, the suite no such package, or the local tree is no oneDNN.
        SettingsError: ``onednn.path`` is needed and not set.
        MachineError: git or apt is missing.
    """
    match settings.onednn.origin:
        case "pinned":
            return _pinned_or_substitute(target, upstream, settings, store)
        case "debian":
            return _debian_plan(target, upstream, settings, store, because="as onednn.origin says")
        case "path":
            return _path_plan(target, upstream, settings)


def _pinned_or_substitute(target: Target, upstream: Upstream, settings: Settings, store: Store) -> Plan:
    try:
        return _pinned_plan(target, upstream, settings, store)
    except GitUnreachableError as error:
        if settings.substitutes == "refuse":
            raise
        because = f"because {error.what} and substitutes are allowed"
        return _debian_plan(target, upstream, settings, store, because=because)


def _pinned_plan(target: Target, upstream: Upstream, settings: Settings, store: Store) -> Plan:
    url, tag = git.address(settings.onednn.git_url or upstream.onednn_url), upstream.onednn_tag
    known = {"origin": "pinned", "pinned": tag, "url": redacted(url)}
    notices: tuple[str, ...] = ()
    try:
        commit = git.resolve(url, tag, timeout_seconds=settings.index.timeout_seconds, remedy=REMEDY)
    except GitUnreachableError as error:
        artifact, notice = kept(store, KIND, error, **known)
        commit = git.Commit(id=artifact.inputs["commit"], ref=artifact.facts["onednn"]["ref"])
        notices = (notice,)
    if commit is None:
        what = f"there is no {tag} in the git repository {redacted(url)}"
        why = f"vLLM {upstream.release} pins it, but the repository has no such tag or branch"
        raise SourceError(what, why=why, remedy="set onednn.git_url to a full mirror of oneDNN")
    inputs = {**known, "commit": commit.id}
    facts = {**inputs, "version": tag.removeprefix("v"), "ref": commit.ref}
    return _plan(target, inputs, (clone_step(url, commit),), facts, notices=notices)


def _debian_plan(target: Target, upstream: Upstream, settings: Settings, store: Store, *, because: str) -> Plan:
    suite = _suite(settings, settings.onednn.debian_suite)
    known = {"origin": "debian", "pinned": upstream.onednn_tag, "suite": suite.name}
    notices: tuple[str, ...] = ()
    try:
        package = suite.find(DEBIAN_PACKAGE)
    except NetworkError as error:
        artifact, notice = kept(store, KIND, error, **known)
        package, notices = _stored_package(artifact), (notice,)
    short = re.split(r"[+~-]", package.version)[0]
    deviation = f"oneDNN {short} of Debian {suite.name} stands in for the pinned {upstream.onednn_tag}"
    return _plan(
        target,
        {**known, "files": {name: file.sha256 for name, file in package.files.items()}},
        _debian_steps(suite, package),
        {**known, "version": package.version, "files": {name: asdict(file) for name, file in package.files.items()}},
        deviation=deviation,
        notices=(*notices, f"{deviation}, {because}: {NOT_FOR_RELEASE}"),
    )


def _stored_package(artifact: Artifact) -> apt.SourcePackage:
    found = artifact.facts["onednn"]
    files = {name: Download(**file) for name, file in found["files"].items()}
    return apt.SourcePackage(name=DEBIAN_PACKAGE, version=found["version"], files=files)


def _debian_steps(suite: apt.Suite, package: apt.SourcePackage) -> tuple[Step, ...]:
    hashes = {name: file.sha256 for name, file in package.files.items()}
    files = tuple(f"{DOWNLOAD}/{name}" for name in package.files)
    downloads = tuple(package.files.values())
    return (
        Step(
            title=f"download Debian's source package {package.name} {package.version}",
            action="onednn.download",
            arguments={"suite": suite.name, "sha256": hashes, "folder": DOWNLOAD},
            writes=files,
            downloads=downloads,
            seconds=sum(file.size or 0 for file in downloads) / BYTES_PER_SECOND,
            invocations=(suite.downloading(package.name, package.version, into=DOWNLOAD),),
        ),
        Step(
            title="unpack it and apply Debian's patches",
            action="onednn.unpack",
            arguments={"control": f"{DOWNLOAD}/{package.control}"},
            reads=files,
            writes=(TREE,),
            seconds=5,
            invocations=(
                Invocation(
                    argv=("dpkg-source", "--no-copy", "--extract", package.control, TREE),
                    environment=apt.ENVIRONMENT,
                    folder=DOWNLOAD,
                ),
            ),
        ),
    )


def _path_plan(target: Target, upstream: Upstream, settings: Settings) -> Plan:
    if settings.onednn.path is None:
        what = "onednn.origin is path, but onednn.path is not set"
        raise SettingsError(what, why="it must name an unpacked oneDNN source", remedy="set onednn.path")
    folder = settings.onednn.path.expanduser().absolute()
    _require_onednn(folder)
    version = _version(folder)
    archives.refuse_links_out(folder)
    sha256 = archives.tree_hash(folder)
    inputs = {"origin": "path", "pinned": upstream.onednn_tag, "tree_sha256": sha256}
    facts = {"origin": "path", "pinned": upstream.onednn_tag, "path": str(folder), "version": version}
    deviation = f"oneDNN {version} of a local tree stands in for the pinned {upstream.onednn_tag}"
    notices = (f"{deviation}, as onednn.origin says: {NOT_FOR_RELEASE}",)
    return _plan(target, inputs, (copy_step(folder, sha256),), facts, deviation=deviation, notices=notices)


def _plan(
    target: Target,
    inputs: Mapping[str, Any],
    steps: tuple[Step, ...],
    facts: Mapping[str, Any],
    *,
    deviation: str | None = None,
    notices: tuple[str, ...] = (),
) -> Plan:
    deviations = (deviation,) if deviation else ()
    told = tuple(f"{line}: {NOT_FOR_RELEASE}" for line in deviations)
    recorded = {**facts, "deviates": bool(deviations), "notices": told}
    record = Step(
        title="look whether it is the source of oneDNN",
        action="onednn.record",
        arguments={"tree": TREE, "onednn": recorded, "deviations": deviations},
        reads=(TREE,),
        seconds=1,
    )
    return Plan(artifact=KIND, target=target.shared(), inputs=inputs, steps=(*steps, record), notices=notices)


def _suite(settings: Settings, name: str) -> apt.Suite:
    folder = settings.state_folder.absolute() / "apt" / name
    return apt.Suite(name=name, folder=folder, timeout_seconds=settings.index.timeout_seconds)


def _require_onednn(folder: Path) -> None:
    if not (folder / ANCHOR).is_file():
        what = f"{folder} is no source tree of oneDNN"
        raise SourceError(
            what, why=f"it has no {ANCHOR}", remedy="set onednn.path or onednn.git_url to oneDNN's source"
        )


def _version(folder: Path) -> str:
    try:
        found = VERSION.search((folder / "CMakeLists.txt").read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        what = f"{folder} is no source tree of oneDNN"
        why = "its CMakeLists.txt cannot be read"
        raise SourceError(what, why=why, remedy="set onednn.path to oneDNN's source") from error
    return found[1] if found else "of unknown version"


def download(
    context: ActionContext, *, suite: str, sha256: Mapping[str, str], folder: str, invocations: tuple[Invocation, ...]
) -> None:
    """Downloads the files of Debian's source package.

    Raises:
        HashMismatchError: one of them is not what apt's lists said when this was planned.
        NetworkError: the mirror does not answer, or no longer has the version.
    """
    into = context.path(folder)
    into.mkdir()
    (invocation,) = context.staged(invocations)
    _suite(context.settings, suite).download(context.runner, invocation)
    for name, expected in sha256.items():
        if archives.file_hash(into / name) != expected:
            what = f"{name} is not the file that was planned with"
            raise HashMismatchError(what, why="the mirror has changed", remedy="run the command again")


def unpack(context: ActionContext, *, control: str, invocations: tuple[Invocation, ...]) -> None:
    """Unpacks Debian's source package, applies its patches, and removes the files it came in.

    Debian's patch ``system-spdlog`` makes CMake look for spdlog, which the builder image has.

    Raises:
        SourceError: it cannot be unpacked.
        MachineError: dpkg-source is missing.
    """
    file = context.path(control)
    (invocation,) = context.staged(invocations)
    finished = apt.run(context.runner, *invocation.argv, cwd=file.parent, seconds=UNPACK_SECONDS)
    if finished.status:
        what = f"{file.name} cannot be unpacked"
        raise SourceError(what, why=apt.reason(finished), remedy="run the command again")
    shutil.rmtree(file.parent)


def record(
    context: ActionContext, *, tree: str, onednn: Mapping[str, Any], deviations: tuple[str, ...]
) -> Mapping[str, Any]:
    """Looks whether the tree is oneDNN's, and tells what it is.

    Raises:
        SourceError: it is not.
    """
    folder = context.path(tree)
    archives.refuse_links_out(folder)
    _require_onednn(folder)
    return {"onednn": onednn, "tree_sha256": archives.tree_hash(folder), "deviations": deviations}


ACTIONS: Mapping[str, Action] = {"onednn.download": download, "onednn.unpack": unpack, "onednn.record": record}
