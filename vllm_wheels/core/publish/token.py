"""Where uploading processes find their tokens: described here without any of them, and asked without reading one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from vllm_wheels.core.errors import CredentialsError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.host.secrets import Secrets
from vllm_wheels.core.index.repositories import Repository
from vllm_wheels.core.settings import PublishSettings

UPLOADER = "vllm_wheels.core.publish.uploader"
LOOK_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Where an uploading process looks for the token of a project; holds none itself."""

    variable: str  # environment variable, entry of the token file, and user in the keyring
    user: str  # that goes with a token
    url: str  # where it uploads to; the keyring's service
    secrets: Secrets = field(default_factory=Secrets)  # variables that this program was started with
    token_file: Path | None = None
    keyring: bool = False
    source: str = ""  # where one was found, in words
    trusted: bool = False  # it is an OIDC identity, for which the process asks the index for a short-lived token
    identity: bool = False  # there is such an identity, with which a file can be signed

    def words(self) -> list[str]:
        """What an uploading or signing process is told."""
        words = ["--parent", str(os.getpid()), "--variable", self.variable, "--user", self.user, "--url", self.url]
        words += ["--token-file", str(self.token_file)] if self.token_file else []
        words += ["--keyring"] if self.keyring else []
        return words + [word for number in self.descriptors() for word in ("--secrets", str(number))]

    def descriptors(self) -> tuple[int, ...]:
        """What it inherits."""
        return () if self.secrets.descriptor is None else (self.secrets.descriptor,)


def variable(repository: Repository, project: str) -> str:
    """Name of the variable that holds the token of a project."""
    name = canonicalize_name(project).replace("-", "_").upper()
    return repository.token_variable.replace("{project}", name)


def credentials(
    repository: Repository, projects: Iterable[str], *, settings: PublishSettings, secrets: Secrets, runner: Runner
) -> dict[str, Credentials]:
    """The credentials for uploads to projects: each project's token, else the job's OIDC identity.

    Raises:
        CredentialsError: there is none for a project, or it cannot be used.
    """
    found: dict[str, Credentials] = {}
    looked: dict[str, Credentials] = {}
    for project in projects:
        name = variable(repository, project)
        if name not in looked:
            place = Credentials(
                variable=name,
                user=repository.user,
                url=repository.upload_url,
                secrets=secrets,
                token_file=settings.token_file,
                keyring=settings.keyring,
            )
            looked[name] = _looked(place, f"there is no token for {project} on {repository.name}", runner)
        found[project] = looked[name]
    return found


def _looked(place: Credentials, what: str, runner: Runner) -> Credentials:
    finished = runner.run(
        [sys.executable, "-m", UPLOADER, *place.words(), "--look"],
        timeout_seconds=LOOK_SECONDS,
        keep_output=True,
        quiet=True,
        pass_fds=place.descriptors(),
    )
    said = answer(finished.output)
    if error := said.get("error"):
        raise CredentialsError(error["what"], why=error["why"], remedy=error["remedy"])
    if not said.get("source"):
        asked = [f"{place.variable} is not set"]
        asked += [f"{place.token_file} has no such line"] if place.token_file else []
        asked += ["the keyring has none"] if place.keyring else []
        why = f"{', '.join(asked)}, and this job has no OIDC identity"
        raise CredentialsError(what, why=why, remedy=f"export {place.variable}=..., with a token for that project")
    return replace(place, source=said["source"], trusted=said["trusted"], identity=said["identity"])


def answer(output: str) -> Mapping[str, Any]:
    """What an uploading process printed for this program: its last line of JSON."""
    found: Mapping[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
    return found
