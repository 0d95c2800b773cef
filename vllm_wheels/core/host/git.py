"""Reads git repositories, local or remote, through the git command: which commit a name stands for, and its files.

Whatever asks a repository raises GitUnreachableError where it cannot be read, and MachineError where git is missing.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.errors import GitUnreachableError, MachineError, SourceError, StepTimeoutError
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.limits import SLOW_BYTES_PER_SECOND
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.texts import redacted

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
FETCH_SECONDS = 1800.0

ENVIRONMENT: Mapping[str, str] = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_HTTP_LOW_SPEED_LIMIT": f"{SLOW_BYTES_PER_SECOND:.0f}",
    "GIT_HTTP_LOW_SPEED_TIME": "60",
    "LC_ALL": "C",
}

REDIRECTING: Mapping[str, None] = {"GIT_DIR": None, "GIT_WORK_TREE": None, "GIT_INDEX_FILE": None}
"""Set when a git hook started this program; they would redirect every command to the hook's repository."""

REMEDY = "check the address and the network, or name a mirror or a local repository"


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit of a repository."""

    id: str  # full hash
    ref: str  # by which it is fetched: a full name such as ``refs/tags/v0.32.0``, or the hash itself


def address(url: str) -> str:
    """The repository's URL, or its absolute path where it names a local folder."""
    folder = Path(url).expanduser()
    return str(folder.absolute()) if folder.is_dir() else url


def resolve(url: str, name: str, *, timeout_seconds: float, remedy: str = REMEDY) -> Commit | None:
    """The commit that a tag, a branch or a full hash stands for; None where the repository has no such name.

    Of equal names the tag's is preferred; a full hash is taken as it is, without asking the repository.
    """
    if COMMIT.fullmatch(name):
        return Commit(id=name, ref=name)
    patterns = (name, f"{name}^{{}}")
    argv = ("git", "ls-remote", "--", url, *patterns)
    finished = _run(Runner(), argv, url=url, timeout_seconds=timeout_seconds, remedy=remedy)
    lines = (line.partition("\t") for line in finished.output.splitlines())
    refs = {ref: commit for commit, _, ref in lines if ref}
    for ref in (f"refs/tags/{name}", f"refs/heads/{name}", name):
        if ref in refs:
            # An annotated tag is an object of its own; the line with ^{} has the commit that it points to.
            return Commit(id=refs.get(f"{ref}^{{}}", refs[ref]), ref=ref)
    return None


def tags(url: str, *, timeout_seconds: float) -> list[str]:
    """Names of a repository's tags, without ``refs/tags/``."""
    argv = ("git", "ls-remote", "--tags", "--refs", "--", url)
    finished = _run(Runner(), argv, url=url, timeout_seconds=timeout_seconds, remedy=REMEDY)
    refs = (line.partition("\t")[2] for line in finished.output.splitlines())
    return [ref.removeprefix("refs/tags/") for ref in refs if ref.startswith("refs/tags/")]


def commands(*, url: str, commit: Commit, folder: str) -> tuple[Invocation, ...]:
    """What ``fetch`` starts, in a plan: init, fetch, rev-parse, checkout."""
    inside = ("git", "-C", folder, "-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null")
    arguments = (
        ("init", "--quiet", "--template="),
        ("fetch", "--quiet", "--depth", "1", "--no-tags", "--", redacted(url), commit.ref),
        ("rev-parse", "FETCH_HEAD^{commit}"),
        ("checkout", "--quiet", "--detach", commit.id),
    )
    return tuple(Invocation(argv=(*inside, *words), environment=ENVIRONMENT) for words in arguments)


def fetch(runner: Runner, *, url: str, commit: Commit, folder: Path, invocations: tuple[Invocation, ...]) -> None:
    """Puts the files of a commit into a new folder, without history and without ``.git``.

    The commands are those of ``commands`` with the real folder; the URL brings the credentials that a plan leaves out.

    Raises:
        SourceError: the ref now stands for another commit.
    """
    folder.mkdir(parents=True)

    def run(invocation: Invocation) -> Finished:
        # A plan is shown to people, so it leaves credentials out.
        argv = tuple(url if word == redacted(url) else word for word in invocation.argv)
        return _run(runner, argv, url=url, timeout_seconds=FETCH_SECONDS, remedy=REMEDY)

    initialize, bring, tell, checkout = invocations
    run(initialize)
    run(bring)
    found = run(tell).output.strip()
    if found != commit.id:
        what = f"{commit.ref} of {redacted(url)} has moved"
        why = f"it was {commit.id[:12]} when this was planned and is {found[:12]} now"
        raise SourceError(what, why=why, remedy="run the command again to take the new one")
    run(checkout)
    shutil.rmtree(folder / ".git")


def _run(runner: Runner, argv: tuple[str, ...], *, url: str, timeout_seconds: float, remedy: str) -> Finished:
    what = f"git repository {redacted(url)} cannot be read"
    try:
        finished = runner.run(
            argv, env={**REDIRECTING, **ENVIRONMENT}, timeout_seconds=timeout_seconds, keep_output=True, quiet=True
        )
    except FileNotFoundError as error:
        missing = "git is not installed"
        raise MachineError(missing, why="there is no git on PATH", remedy="apt-get install git") from error
    except StepTimeoutError as error:
        raise GitUnreachableError(what, why=f"no answer within {timeout_seconds:.0f} s", remedy=remedy) from error
    if finished.status:
        raise GitUnreachableError(what, why=_reason(finished), remedy=remedy)
    return finished


def _reason(finished: Finished) -> str:
    fatal = [line for line in finished.tail if line.startswith(("fatal:", "error:"))]
    line = next(iter(fatal or finished.tail), f"git ended with status {finished.status}")
    return redacted(line.removeprefix("fatal:").removeprefix("error:").strip())
