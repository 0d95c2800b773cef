"""Reads tokens: in the processes that upload and sign, and nowhere else."""

from __future__ import annotations

import argparse
import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vllm_wheels.core.errors import CredentialsError
from vllm_wheels.core.host.ownership import end_with
from vllm_wheels.core.host.secrets import Secrets, become_unreadable, private_text

IDENTITY = ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
"""By these variables a job of GitHub Actions has an OIDC identity; package ``id`` asks for it there."""

REDACTED = "<token>"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A token, or an identity to be exchanged for one.

    Attributes:
        source: where it was, in words; empty where there is none.
        token: never printed, not even by ``repr``.
        identity: the job's OIDC identity, where it has one.
    """

    source: str
    user: str
    token: str = field(default="", repr=False)
    identity: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def trusted(self) -> bool:
        """Whether the identity stands in for a token."""
        return not self.token and bool(self.identity)

    def redact(self, text: str) -> str:
        """The text without any secret, plain or as HTTP's basic authentication sends it."""
        basic = base64.b64encode(f"{self.user}:{self.token}".encode()).decode() if self.token else ""
        for secret in (basic, self.token, self.identity.get(IDENTITY[1], "")):
            text = text.replace(secret, REDACTED) if secret else text
        return text


def parser() -> argparse.ArgumentParser:
    """The arguments of ``Credentials.words``."""
    found = argparse.ArgumentParser()
    found.add_argument("--parent", type=int, required=True, help="process with which this one ends")
    found.add_argument("--variable", required=True)
    found.add_argument("--user", required=True)
    found.add_argument("--url", required=True)
    found.add_argument("--secrets", type=int)
    found.add_argument("--token-file", type=Path)
    found.add_argument("--keyring", action="store_true")
    return found


def find(given: argparse.Namespace) -> Found:
    """Looks for the token: variables, file, keyring; else for the job's identity.

    Raises:
        CredentialsError: the file is not private, or a token holds white space.
    """
    become_unreadable()
    end_with(given.parent)
    variables = Secrets(descriptor=given.secrets).read()
    identity = {name: variables[name] for name in IDENTITY if variables.get(name)}
    identity = identity if len(identity) == len(IDENTITY) else {}
    for source, token in _tokens(given, variables):
        if token.split() != [token]:
            what = f"the token in {given.variable} is not usable"
            raise CredentialsError(
                what, why=f"it holds white space ({source})", remedy=f"give {given.variable} again, on one line"
            )
        return Found(source=source, user=given.user, token=token, identity=identity)
    return Found(source="this job's OIDC identity" if identity else "", user=given.user, identity=identity)


def _tokens(given: argparse.Namespace, variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if token := variables.get(given.variable):
        yield f"{given.variable} is set", token
    if given.token_file and (token := _lines(given.token_file).get(given.variable)):
        yield f"{given.token_file} has it", token
    if given.keyring and (token := _of_keyring(given.url, given.variable)):
        yield "the keyring has it", token


def _lines(path: Path) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in private_text(path, "the token file").splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals and not name.startswith("#")}


def _of_keyring(service: str, name: str) -> str | None:
    # It loads what the user's desktop has, which takes a while: only where it is asked.
    import keyring  # noqa: PLC0415
    from keyring.errors import KeyringError  # noqa: PLC0415

    try:
        return keyring.get_password(service, name)
    except KeyringError as error:
        what = f"the keyring does not give the token {name}"
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise CredentialsError(what, why=why, remedy="unlock it, or set publish.keyring = false") from error


def as_job(found: Found) -> None:
    """Lets libraries of this process find the job's identity where they look for it."""
    os.environ.update(found.identity)
