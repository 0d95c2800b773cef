"""What a build fetches, and from whom: package index, CPU torch, git host, clock; and tokens for uploads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from vllm_wheels.core.artifacts.source.planning import facts_of
from vllm_wheels.core.artifacts.torch_env.locking import lock, refuse_cuda
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import CredentialsError, StepTimeoutError, VllmWheelsError
from vllm_wheels.core.host.http import LISTING, index_session, index_url
from vllm_wheels.core.index.arguments import index_arguments
from vllm_wheels.core.index.releases import PROJECT, releases
from vllm_wheels.core.names import distributions
from vllm_wheels.core.operations.doctor.findings import Finding, Scene, lacking, ok, replaceable
from vllm_wheels.core.publish.release import repositories
from vllm_wheels.core.publish.token import credentials
from vllm_wheels.core.texts import redacted, without_credentials

if TYPE_CHECKING:
    from vllm_wheels.core.patches.upstream import Upstream

PAGES = (PROJECT, "setuptools", "auditwheel")
"""Projects whose pages every build reads: the release, a build requirement, and a tool that repairs wheels."""

KINDS = ("application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html", "text/html")
"""What a simple API answers with (PEP 503, PEP 691)."""

SLACK_SECONDS = 60.0
"""How far a clock may be off: signatures and tokens are refused beyond minutes."""

NETWORK = "check the network and proxies, or name a mirror: index.url, PIP_INDEX_URL"


def index(scene: Scene) -> Iterator[Finding]:
    """The package index: does its simple API have the pages that builds read; and the clock, against its own."""
    url = index_url(scene.settings)
    shown = redacted(url)
    if urlsplit(url).scheme not in {"http", "https"}:
        yield ok("index", f"{shown} has {len(releases(scene.settings))} releases of {PROJECT}")
        return
    clean, _ = without_credentials(url)
    dates = []
    with index_session(scene.settings, LISTING) as opened:
        for project in PAGES:
            wanted, trouble = f"{clean.rstrip('/')}/{project}/", ""
            try:
                headers = {"Accept": ", ".join(KINDS)}
                with opened.get(wanted, headers=headers, timeout=scene.seconds, stream=True) as answer:
                    trouble = _trouble(answer)
                    dates.append(answer.headers.get("Date", ""))
            except requests.RequestException as error:
                yield lacking("index", f"{shown} does not answer ({type(error).__name__})", NETWORK, needed=True)
                return
            if trouble:
                yield lacking("index", f"{shown}: {project}: {trouble}", NETWORK, needed=True)
                return
    yield ok("index", f"{shown} has {', '.join(PAGES)}")
    yield from clock(dates[-1], datetime.now(UTC))


def _trouble(answer: requests.Response) -> str:
    kind = answer.headers.get("Content-Type", "nothing").partition(";")[0].strip()
    if not answer.ok:
        return f"status {answer.status_code}"
    return "" if kind in KINDS else f"answers with {kind}, not as a simple API"


def clock(date: str, now: datetime) -> Iterator[Finding]:
    """This machine's clock against a server's, by its HTTP header Date."""
    try:
        off = (now - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return
    if abs(off) <= SLACK_SECONDS:
        yield ok("clock", f"within {SLACK_SECONDS:.0f} s of the index's")
    else:
        direction = "ahead of" if off > 0 else "behind"
        found = f"{abs(off):.0f} s {direction} the index's"
        yield lacking("clock", found, "timedatectl set-ntp true", needed=True)


def torch(scene: Scene) -> Iterator[Finding]:
    """Whether the index offers a CPU build of torch."""
    settings = scene.settings
    known = _upstream(scene)
    pin = settings.torch.version or (known.torch if known else None)
    wanted = f"torch=={pin}" if pin else "torch"
    found = remedy = ""
    for backend in dict.fromkeys(("cpu" if settings.torch.backend == "cpu" else None, None)):
        try:
            locked = lock(
                [wanted],
                python=scene.python,
                index=index_arguments(settings, os.environ),
                backend=backend,
                answer_seconds=scene.seconds,
                environ=os.environ,
                retries=0,
            )
            refuse_cuda(locked)
        except VllmWheelsError as error:
            found, remedy = (found, remedy) if found else (f"{error.what}: {error.why}", error.remedy)
            continue
        package = locked.find("torch")
        text = f"torch {package.version if package else ''} for Python {scene.python}"
        if backend == "cpu" or settings.torch.backend == "none":
            yield ok("torch", text)
        else:
            way = "--allow-substitutes, or torch.backend = none"
            why = "PyTorch's index of CPU builds does not answer"
            yield replaceable("torch", f"{text} is to be had, but {why}", way, substitutes=scene.substitutes)
        return
    yield lacking("torch", found, remedy, needed=True)


def git(scene: Scene) -> Iterator[Finding]:
    """The git repositories that a build would take from."""
    settings, known = scene.settings, _upstream(scene)
    if settings.source.origin == "git":
        yield _listed(scene, "git: vLLM", settings.source.git_url, stand_in=False)
    if settings.onednn.origin == "pinned":
        url = settings.onednn.git_url or (known.onednn_url if known else None)
        if url:
            yield _listed(scene, "git: oneDNN", url, stand_in=scene.substitutes)
        else:
            yield ok("git: oneDNN", "the release names its address; its source is not there yet")


def _listed(scene: Scene, name: str, url: str, *, stand_in: bool) -> Finding:
    argv = ["git", "ls-remote", "--exit-code", url, "HEAD"]
    environment = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    shown = redacted(url)
    try:
        done = scene.runner.run(argv, env=environment, timeout_seconds=scene.seconds, quiet=True)
    except FileNotFoundError:
        return replaceable(name, "there is no git", scene.install("git"), substitutes=stand_in)
    except StepTimeoutError:
        why = f"no answer within {scene.seconds:.0f} s"
    else:
        if done.status == 0:
            return ok(name, f"{shown} answers")
        why = redacted(done.tail[-1]) if done.tail else f"status {done.status}"
    setting = "source.git_url" if name.endswith("vLLM") else "onednn.git_url"
    remedy = f"name a mirror in {setting}" + (", or --allow-substitutes" if setting.startswith("onednn") else "")
    return replaceable(name, f"{shown} cannot be read: {why}", remedy, substitutes=stand_in)


def tokens(scene: Scene) -> Iterator[Finding]:
    """Tokens for uploads: whether they are there, never what they are."""
    settings = scene.settings
    if settings.publish.repository is None:
        yield ok("tokens", "no publish.repository is set, so none is needed")
        return
    for repository in repositories(settings):
        for project in distributions(settings).values():
            name = f"token: {project}"
            try:
                found = credentials(
                    repository, [project], settings=settings.publish, secrets=scene.secrets, runner=scene.runner
                )
            except CredentialsError as error:
                yield lacking(name, f"{error.what} ({error.why})", error.remedy, needed=False)
            else:
                yield ok(name, found[project].source)


def _upstream(scene: Scene) -> Upstream | None:
    """What the default release demands, where its source has been fetched before."""
    for artifact in Store(scene.settings.state_folder / "store").artifacts("source"):
        upstream = facts_of(artifact)
        if upstream.release == scene.settings.default_release:
            return upstream
    return None
