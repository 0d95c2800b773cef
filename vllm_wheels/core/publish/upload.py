"""Uploads one file until the index lists it: one attempt at a time, judged by its answer and by the index's state."""

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from vllm_wheels.core.errors import (
    ConflictError,
    CredentialsError,
    IndexRuleError,
    IndexUnreachableError,
    NameTakenError,
    PublicationError,
    StepTimeoutError,
    UnfinishedUploadError,
)
from vllm_wheels.core.host.http import CLOCK, AgainError, Clock, Policy, persistently, seconds_of
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.repositories import Repository
from vllm_wheels.core.index.state import RemoteFile, project_state
from vllm_wheels.core.publish.candidate import Candidate
from vllm_wheels.core.publish.journal import Journal
from vllm_wheels.core.publish.token import UPLOADER, Credentials, answer
from vllm_wheels.core.settings import Settings

T = TypeVar("T")

Judgement = Literal["accepted", "exists", "again", "credentials", "taken", "refused"]

ANSWERS: tuple[tuple[str, str, Judgement], ...] = (
    (r"2\d\d", r"", "accepted"),
    (r"409", r"", "exists"),
    (r"4\d\d", r"already (exists|been (used|uploaded))|file name reuse", "exists"),
    (r"403", r"(isn't|is not|not) allowed to|belongs to|someone else", "taken"),
    (r"4\d\d", r"the name .* (isn't|is not|not) allowed|too similar to an existing project", "taken"),
    (r"403", r"read-only|temporarily disabled", "again"),
    (r"401|403", r"", "credentials"),
    (r"408|425|429|5\d\d", r"", "again"),
    (r"\d+", r"", "refused"),
)
"""Status, text of the answer, and what they mean; the first that fits."""

CHOKED = 500
"""Answer of a server that did not expect a form without a file: it says nothing of what it would do with one."""

FIRST_PAUSE_SECONDS, POLL_SECONDS = 2.0, 3.0
LONGEST_LINE = 300
LOST_SECONDS = 3600.0
"""A file that was accepted so long ago, and is not listed, is taken for lost: it is sent again."""

ACCEPTED = "it accepted the file but does not list it yet"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an index answered to one attempt; status 0 if the connection broke or nothing came in time."""

    status: int
    text: str
    retry_after: float | None = None

    @property
    def judgement(self) -> Judgement:
        """What it means."""
        if not self.status:
            return "again"
        for status, text, judgement in ANSWERS:
            if re.fullmatch(status, str(self.status)) and re.search(text, self.text, re.IGNORECASE):
                return judgement
        return "refused"

    @property
    def line(self) -> str:
        """For people."""
        return f"it answered {self.status} {self.text}" if self.status else self.text


@dataclass(frozen=True, kw_only=True)
class Sent:
    """How a file got onto an index."""

    remote: RemoteFile  # as the index lists it
    answers: tuple[str, ...] = ()  # of all attempts, in order; none if it was there already


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Brings files onto one index."""

    repository: Repository
    journal: Journal
    runner: Runner  # starts the uploading process
    settings: Settings  # publish.patience_seconds, publish.settle_seconds and index.timeout_seconds count
    say: Callable[[str], None]  # tells the user one line
    clock: Clock = CLOCK

    def preflight(self, candidate: Candidate, credentials: Credentials) -> None:
        """Sends everything but the file, to learn whether the index would take files of the project from us.

        Indexes look at who asks before they look at the file; what they say of the file itself says nothing.

        Raises:
            CredentialsError: the token is not accepted.
            NameTakenError: the project is somebody else's.
            UnfinishedUploadError: the index did not answer within ``patience_seconds``, or asked for patience so long.
        """

        def attempt() -> None:
            answer = self._attempt(candidate.path, candidate, credentials, preflight=True)
            if answer.judgement in {"credentials", "taken"}:
                raise self._refusal(candidate, answer, credentials)
            if answer.judgement == "again" and answer.status != CHOKED:
                raise AgainError(answer.line, retry_after=answer.retry_after)

        self._until_answered(attempt, candidate)

    def send(
        self, candidate: Candidate, path: Path, credentials: Credentials, *, attestations: tuple[Path, ...] = ()
    ) -> Sent:
        """Uploads a file that the index does not list, until it does.

        What is read is ``path``, a copy of the candidate's bytes that nobody else writes to.

        Raises:
            CredentialsError: the token is not accepted.
            NameTakenError: the project is somebody else's.
            ConflictError: the index has other bytes under the name.
            IndexRuleError: the index refuses the file.
            UnfinishedUploadError: it is not there yet; the next run goes on.
        """
        answers: list[str] = []
        last = self.journal.last(path.name, candidate.sha256)
        # Another run may have sent it since this one drew up its plan, and held the lock meanwhile.
        if last and last["act"] == "listed" and (found := self._listed(candidate)):
            return Sent(remote=found)
        if last and last["act"] == "accepted":
            if found := self._wait_until_listed(candidate):
                return Sent(remote=found)
            if time.time() - last["at"] < LOST_SECONDS:
                raise self._unfinished(candidate, ACCEPTED)

        def attempt() -> Sent:
            self.journal.write("sending", path.name, candidate.sha256, index=self.repository.shown)
            answer = self._attempt(path, candidate, credentials, attestations=attestations)
            answers.append(answer.line)
            if answer.judgement in {"accepted", "exists"}:
                return self._settled(candidate, answer, answers)
            self.journal.write("failed", path.name, candidate.sha256, answer=answer.line)
            if answer.judgement != "again":
                raise self._refusal(candidate, answer, credentials)
            # A time-out may have come after the file was taken.
            if found := self._listed(candidate):
                return Sent(remote=found, answers=tuple(answers))
            raise AgainError(answer.line, retry_after=answer.retry_after)

        return self._until_answered(attempt, candidate)

    def _until_answered(self, attempt: Callable[[], T], candidate: Candidate) -> T:
        def say(why: str, seconds: float) -> None:
            self.say(f"{candidate.path.name}: {why}; trying again in {seconds:.0f} s")

        policy = Policy(
            deadline_seconds=self.settings.publish.patience_seconds,
            attempts=None,
            first_pause_seconds=FIRST_PAUSE_SECONDS,
        )
        try:
            return persistently(attempt, policy, clock=self.clock, say=say)
        except AgainError as error:
            raise self._unfinished(candidate, str(error)) from error

    def _settled(self, candidate: Candidate, answer: Answer, answers: list[str]) -> Sent:
        if answer.judgement == "accepted":
            self.journal.write("accepted", candidate.path.name, candidate.sha256, answer=answer.line)
        if found := self._wait_until_listed(candidate):
            return Sent(remote=found, answers=tuple(answers))
        if answer.judgement == "exists":
            self.journal.write("failed", candidate.path.name, candidate.sha256, answer=answer.line)
            what = f"{self.repository.name} refuses {candidate.path.name}"
            why = f"{answer.line}, but does not list it: the name was used and deleted, or its page is old"
            raise IndexRuleError(what, why=why, remedy="run again in an hour; if it stays so, publish a .postN")
        raise self._unfinished(candidate, ACCEPTED)

    def _wait_until_listed(self, candidate: Candidate) -> RemoteFile | None:
        def look() -> RemoteFile:
            if found := self._listed(candidate):
                return found
            message = "the index does not list it"
            raise AgainError(message, retry_after=POLL_SECONDS)

        try:
            return persistently(
                look, Policy(deadline_seconds=self.settings.publish.settle_seconds, attempts=None), clock=self.clock
            )
        except AgainError:
            return None

    def _listed(self, candidate: Candidate) -> RemoteFile | None:
        name = candidate.path.name
        try:
            state = project_state(
                self.repository,
                candidate.project,
                timeout_seconds=self.settings.index.timeout_seconds,
                wanted=frozenset({name}),
            )
        except IndexUnreachableError as error:
            self.say(f"{error.what}: {error.why}")
            return None
        found = state.files.get(name)
        if found and found.sha256 != candidate.sha256:
            what = f"{name} is on {self.repository.name} with other bytes"
            why = f"the index has sha256 {found.sha256[:12]}, this file has {candidate.sha256[:12]}"
            raise ConflictError(what, why=why, remedy="plan again: vllm-wheels publish names the next free .postN")
        if found:
            self.journal.write("listed", name, candidate.sha256)
        return found

    def _attempt(
        self,
        path: Path,
        candidate: Candidate,
        credentials: Credentials,
        *,
        preflight: bool = False,
        attestations: tuple[Path, ...] = (),
    ) -> Answer:
        words = [sys.executable, "-m", UPLOADER, *credentials.words(), *(["--preflight"] * preflight)]
        words += ["--timeout", str(self.settings.index.timeout_seconds)]
        words += [word for each in attestations for word in ("--attestation", str(each))]
        try:
            finished = self.runner.run(
                [*words, str(path)],
                timeout_seconds=self.settings.publish.patience_seconds,
                keep_output=True,
                quiet=True,
                pass_fds=credentials.descriptors(),
            )
        except StepTimeoutError:
            return Answer(status=0, text=f"no answer within {self.settings.publish.patience_seconds:.0f} s")
        return _answer(finished.output, candidate)

    def _refusal(self, candidate: Candidate, answer: Answer, credentials: Credentials) -> PublicationError:
        name, project = candidate.path.name, candidate.project
        match answer.judgement:
            case "taken":
                what = f"{self.repository.name} lets somebody else publish {project}"
                remedy = "choose another name in wheel.distributions, or have its owner invite you"
                return NameTakenError(what, why=answer.line, remedy=remedy)
            case "credentials":
                means = "this job's identity" if credentials.trusted else "the token"
                what = f"{self.repository.name} does not accept {means} for {project}"
                remedy = f"export {credentials.variable} with a token for this project and index"
                if credentials.trusted:
                    remedy = f"register this job as a trusted publisher of {project} there, or {remedy}"
                return CredentialsError(what, why=answer.line, remedy=remedy)
            case _:
                what = f"{self.repository.name} refuses {name}"
                return IndexRuleError(what, why=answer.line, remedy="correct what it names, then build again")

    def _unfinished(self, candidate: Candidate, why: str) -> UnfinishedUploadError:
        what = f"{candidate.path.name} is not on {self.repository.name} yet"
        return UnfinishedUploadError(what, why=why, remedy="run the same command again later; it continues")


def _answer(output: str, candidate: Candidate) -> Answer:
    said = answer(output)
    if error := said.get("error"):
        raise CredentialsError(error["what"], why=error["why"], remedy=error["remedy"])
    if "broke" in said:
        return Answer(status=0, text=f"the connection broke ({said['broke']})")
    if not said or "failed" in said:
        what = f"twine cannot send {candidate.path.name}"
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "it gave no reason")
        why = said.get("failed", last)
        raise PublicationError(what, why=why[:LONGEST_LINE], remedy="verify the wheel, then run the command again")
    body = " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", said["body"], flags=re.DOTALL).split())
    text = said["reason"] if said["reason"] in body or not body else f"{said['reason']}: {body}"
    text = body if body and said["reason"] in body else text
    return Answer(status=said["status"], text=text[:LONGEST_LINE], retry_after=seconds_of(said["retry_after"]))
