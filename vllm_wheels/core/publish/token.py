"""Tokens for uploads: read from the environment, handed to the uploading process alone, never shown."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from vllm_wheels.core.errors import CredentialsError
from vllm_wheels.core.index.repositories import Repository

PASSWORD = "TWINE_PASSWORD"  # noqa: S105 - the name of a variable
USER = "TWINE_USERNAME"

IDENTITY = ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
"""By these variables a job of GitHub Actions has an OIDC identity; package ``id`` asks for it there."""

REDACTED = "<token>"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What the uploading process of one project gets."""

    environment: Mapping[str, str] = field(repr=False)  # its variables; never printed, not even by ``repr``
    trusted: bool  # they are an OIDC identity, for which the process asks the index for a short-lived token

    def redact(self, text: str) -> str:
        """The text without any secret of the environment, plain or as HTTP's basic authentication sends it."""
        password = self.environment.get(PASSWORD, "")
        user = self.environment.get(USER, "")
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        for secret in (basic, password, self.environment.get(IDENTITY[1], "")):
            text = text.replace(secret, REDACTED) if secret else text
        return text


def variable(repository: Repository, project: str) -> str:
    """Name of the variable that holds the token of a project."""
    name = canonicalize_name(project).replace("-", "_").upper()
    return repository.token_variable.replace("{project}", name)


def credentials(repository: Repository, project: str, environ: Mapping[str, str] | None = None) -> Credentials:
    """The credentials for uploads to a project: its token, else the job's OIDC identity."""
    environ = os.environ if environ is None else environ
    name = variable(repository, project)
    token = environ.get(name, "")
    if token:
        if token.split() != [token]:
            what = f"the token in {name} is not usable"
            raise CredentialsError(what, why="it holds white space", remedy=f"export {name} again, on one line")
        return Credentials(environment={USER: repository.user, PASSWORD: token}, trusted=False)
    identity = {key: environ[key] for key in IDENTITY if environ.get(key)}
    if len(identity) == len(IDENTITY):
        return Credentials(environment=identity, trusted=True)
    what = f"there is no token for {project} on {repository.name}"
    why = f"{name} is not set, and this job has no OIDC identity"
    raise CredentialsError(what, why=why, remedy=f"export {name}=..., with a token for that project")
