"""Plans the oneDNN source that goes into the wheel: the release's pin, Debian's, or a local tree."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from packaging.version import Version

from vllm_wheels.core.artifacts.source.planning import (
    BYTES_PER_SECOND,
    DOWNLOAD,
    TREE,
    clone_step,
    copy_step,
    kept,
    upstream_of,
)
from vllm_wheels.core.builders import apt
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import GitUnreachableError, HashMismatchError, NetworkError, SettingsError, SourceError
from vllm_wheels.core.host import archives, git
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.patches.upstream import Upstream
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels.core.texts import redacted

KIND = "onednn"
DEBIAN_PACKAGE = "onednn"
SUITES = ("trixie", "forky")
"""Suites of Debian with different versions of oneDNN, 3.7 and 3.12 in November 2026; others have one of these."""

ANCHOR = "include/oneapi/dnnl/dnnl.h"
VERSION = re.compile(r'(?:set\s*\(\s*PROJECT_VERSION|project\s*\([^)]*\bVERSION)\s+"?(\d[\w.]*)')
NOT_FOR_RELEASE = "this wheel is not for release"
UNPACK_SECONDS = 600.0

REMEDY = 'set onednn.origin to "debian" or "path", name a mirror in onednn.git_url, or give --allow-substitutes'


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """Arguments of ``download``: the suite of Debian, and the hash of each file."""

    suite: str
    sha256: Mapping[str, str | None]
    folder: str


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Arguments of ``record``: the tree, and what is known of it."""

    tree: str
    onednn: Mapping[str, Any]
    deviations: tuple[str, ...]


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``onednn``.

    Its fact is ``tree_sha256``, with ``deviations`` from the release's pin; its detail is ``onednn`` (``version``,
    ``origin``, ``pinned``, ``deviates``, ``notices``, where it came from). Where the git host does not answer, an
    earlier oneDNN of the same pin is taken.

    Raises:
        GitUnreachableError: the git host does not answer, the store has no such artifact, and substitutes are refused.
        NetworkError: Debian's mirror does not answer.
        SourceError: the repository has no such tag, the suite no such package, or the local tree is no oneDNN.
        SettingsError: ``onednn.path`` is needed and not set.
        MachineError: git or apt is missing.
    """
    target, settings, store = context.target, context.settings, context.store
    upstream = upstream_of(context)
    if upstream is None:
        return Plan(artifact=KIND, target=target, inputs={}, steps=())
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
    try:
        commit = git.resolve(url, tag, timeout_seconds=settings.index.timeout_seconds, remedy=REMEDY)
    except GitUnreachableError as error:
        return _kept_plan(target, store, error, known)
    if commit is None:
        what = f"there is no {tag} in the git repository {redacted(url)}"
        why = f"vLLM {upstream.release} pins it, but the repository has no such tag or branch"
        raise SourceError(what, why=why, remedy="set onednn.git_url to a full mirror of oneDNN")
    inputs = {**known, "commit": commit.id}
    facts = {**inputs, "version": tag.removeprefix("v"), "ref": commit.ref}
    return _plan(target, inputs, (clone_step(url, commit),), facts)


def _debian_plan(target: Target, upstream: Upstream, settings: Settings, store: Store, *, because: str) -> Plan:
    known = {"origin": "debian", "pinned": upstream.onednn_tag}
    named = {"suite": settings.onednn.debian_suite} if settings.onednn.debian_suite else {}
    offered, error = _offered(settings)
    missing = (f"{error.what}: a farther oneDNN may be taken",) if error and offered else ()
    if isinstance(error, NetworkError) and (kept_one := _kept(target, store, error, {**known, **named})):
        return kept_one
    if error and not offered:
        raise error
    suite, package = min(offered, key=lambda each: _distance(each[1].version, upstream.onednn_tag))
    known["suite"] = suite.name
    short = _short(package.version)
    deviation = f"oneDNN {short} of Debian {suite.name} stands in for the pinned {upstream.onednn_tag}"
    return _plan(
        target,
        {**known, "files": {name: file.sha256 for name, file in package.files.items()}},
        _debian_steps(suite, package),
        {**known, "version": package.version},
        deviation=deviation,
        notices=(f"{deviation}, {because}: {NOT_FOR_RELEASE}", *missing),
    )


def _offered(settings: Settings) -> tuple[list[tuple[apt.Suite, apt.SourcePackage]], NetworkError | SourceError | None]:
    """The source packages that the mirror has, and why it has one of them not: not every mirror has every suite."""
    chosen = settings.onednn.debian_suite
    found: list[tuple[apt.Suite, apt.SourcePackage]] = []
    trouble: NetworkError | SourceError | None = None
    for suite in (_suite(settings, name) for name in ((chosen,) if chosen else SUITES)):
        try:
            found.append((suite, suite.find(DEBIAN_PACKAGE)))
        except (NetworkError, SourceError) as error:
            trouble = trouble or error
    return found, trouble


def _kept(target: Target, store: Store, error: NetworkError, known: Mapping[str, str]) -> Plan | None:
    try:
        return _kept_plan(target, store, error, known)
    except NetworkError:
        return None


def _short(version: str) -> str:
    """Upstream's part of a version of Debian."""
    return re.split(r"[+~-]", version)[0]


def _distance(version: str, tag: str) -> tuple[int, ...]:
    """How far a version of Debian is from a tag: by major, then minor, then micro number."""
    have, pin = (Version(text).release for text in (_short(version), tag))
    return tuple(abs(one - other) for one, other in zip_longest(have, pin, fillvalue=0))


def _kept_plan(target: Target, store: Store, error: NetworkError, known: Mapping[str, str]) -> Plan:
    """The plan by which an earlier oneDNN of the same pin is taken once more, as a server does not answer."""
    artifact, notice = kept(store, KIND, error, **known)
    deviations = tuple(artifact.facts["deviations"])
    return _plan(
        target,
        artifact.inputs,
        (copy_step(artifact.folder / "tree", artifact.facts["tree_sha256"]),),
        {name: value for name, value in artifact.details["onednn"].items() if name not in {"deviates", "notices"}},
        deviation=next(iter(deviations), None),
        notices=(notice, *(f"{line}: {NOT_FOR_RELEASE}" for line in deviations)),
    )


def _debian_steps(suite: apt.Suite, package: apt.SourcePackage) -> tuple[Step[Any], ...]:
    hashes = {name: file.sha256 for name, file in package.files.items()}
    files = tuple(f"{DOWNLOAD}/{name}" for name in package.files)
    downloads = tuple(package.files.values())
    return (
        Step(
            title=f"download Debian's source package {package.name} {package.version}",
            action=download,
            arguments=Fetching(suite=suite.name, sha256=hashes, folder=DOWNLOAD),
            writes=files,
            downloads=downloads,
            seconds=sum(file.size or 0 for file in downloads) / BYTES_PER_SECOND,
            invocations=(suite.downloading(package.name, package.version, into=DOWNLOAD),),
        ),
        Step(
            title="unpack it and apply Debian's patches",
            action=unpack,
            arguments=f"{DOWNLOAD}/{package.control}",
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
    steps: tuple[Step[Any], ...],
    facts: Mapping[str, Any],
    *,
    deviation: str | None = None,
    notices: tuple[str, ...] = (),
) -> Plan:
    deviations = (deviation,) if deviation else ()
    told = tuple(f"{line}: {NOT_FOR_RELEASE}" for line in deviations)
    recorded = {**facts, "deviates": bool(deviations), "notices": told}
    recording = Step(
        title="look whether it is the source of oneDNN",
        action=record,
        arguments=Recording(tree=TREE, onednn=recorded, deviations=deviations),
        reads=(TREE,),
        seconds=1,
    )
    return Plan(artifact=KIND, target=target.shared(), inputs=inputs, steps=(*steps, recording), notices=notices)


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


def download(context: ActionContext, arguments: Fetching) -> None:
    """Downloads the files of Debian's source package.

    Raises:
        HashMismatchError: one of them is not what apt's lists said when this was planned.
        NetworkError: the mirror does not answer, or no longer has the version.
    """
    into = context.path(arguments.folder)
    into.mkdir()
    (invocation,) = context.staged()
    _suite(context.settings, arguments.suite).download(context.runner, invocation)
    for name, expected in arguments.sha256.items():
        if sha256_of(into / name) != expected:
            what = f"{name} is not the file that was planned with"
            raise HashMismatchError(what, why="the mirror has changed", remedy="run the command again")


def unpack(context: ActionContext, control: str) -> None:
    """Unpacks Debian's source package, applies its patches, and removes the files it came in.

    Debian's patch ``system-spdlog`` makes CMake look for spdlog, which the builder image has.

    Raises:
        SourceError: it cannot be unpacked.
        MachineError: dpkg-source is missing.
    """
    file = context.path(control)
    (invocation,) = context.staged()
    finished = apt.run(context.runner, *invocation.argv, cwd=file.parent, seconds=UNPACK_SECONDS)
    if finished.status:
        what = f"{file.name} cannot be unpacked"
        raise SourceError(what, why=apt.reason(finished), remedy="run the command again")
    shutil.rmtree(file.parent)


def record(context: ActionContext, arguments: Recording) -> Made:
    """Looks whether the tree is oneDNN's, raises SourceError where it is not, and tells what it is."""
    folder = context.path(arguments.tree)
    archives.refuse_links_out(folder)
    _require_onednn(folder)
    return Made(
        facts={"tree_sha256": archives.tree_hash(folder), "deviations": arguments.deviations},
        details={"onednn": arguments.onednn},
    )
