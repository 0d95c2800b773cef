"""Sends one file, or only preflights, through twine; for the uploading process alone."""

import argparse
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import requests
import requests_toolbelt
from twine.auth import CredentialInput, Resolver
from twine.exceptions import TrustedPublishingFailure, TwineException
from twine.package import PackageFile
from twine.repository import Repository

from vllm_wheels.core.host.http import MESSAGE, limited
from vllm_wheels.core.host.limits import FILE_SECONDS

TOKEN_USER = "__token__"  # noqa: S105 - a user's name

NO_FILE = "does not have a file"
"""The public index's answer to a form without a file, which it gives before it looks whose project it is."""

NO_FILE_NAME = "preflight"
"""A name without the ending of a package: refused by the public index, but only after it looked whose project it is."""
LONGEST_BODY = 2000


def send(given: argparse.Namespace, *, user: str, token: str) -> dict[str, Any]:
    """What the index answered to one attempt; without a token, to one for which the job's identity was exchanged."""
    try:
        return _send(given, user, token)
    except requests.RequestException as error:
        return {"broke": type(error).__name__}
    except TrustedPublishingFailure as error:
        return {"status": 403, "reason": "no trusted publisher", "retry_after": None, "body": str(error)}
    except (TwineException, ValueError, OSError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return {"failed": f"{type(error).__name__}: {lines[-1] if lines else 'no reason'}"}


def _send(given: argparse.Namespace, user: str, token: str) -> dict[str, Any]:
    if not token:
        resolver = Resolver({"repository": given.url, "username": None, "password": None}, CredentialInput())
        user, token = TOKEN_USER, resolver.make_trusted_publishing_token() or ""
    repository = Repository(given.url, user, token, disable_progress_bar=True)
    with closing(repository):
        repository.set_certificate_authority(os.environ.get("TWINE_CERT") or os.environ.get("PIP_CERT"))
        limited(repository.session, replace(MESSAGE, deadline_seconds=FILE_SECONDS))
        repository.session.request = partial(  # type: ignore[method-assign]  # twine sets no time-out of its own
            repository.session.request, timeout=given.timeout
        )
        package = PackageFile.from_filename(given.file, comment=None)
        if given.attestation:
            package.add_attestations(given.attestation)
        # One attempt: twine would send again at once and without looking whether the file arrived.
        response = _preflight(repository, package) if given.preflight else repository.upload(package, max_redirects=1)
    return {
        "status": response.status_code,
        "reason": response.reason,
        "retry_after": response.headers.get("Retry-After"),
        "body": response.text[:LONGEST_BODY],
    }


def _preflight(repository: Repository, package: PackageFile) -> requests.Response:
    fields: list[tuple[str, str]] = [(":action", "file_upload"), ("protocol_version", "1")]
    for name, value in package.metadata_dictionary().items():
        if isinstance(value, dict):
            fields.extend((name, f"{key}, {text}") for key, text in value.items())
        elif isinstance(value, list | tuple):
            fields.extend((name, str(each)) for each in value)
        elif value is not None:
            fields.append((name, str(value)))
    answer = _post(repository, fields)
    if NO_FILE in f"{answer.reason} {answer.text}":
        answer = _post(repository, [*fields, ("content", (NO_FILE_NAME, b"", "application/octet-stream"))])
    return answer


def _post(repository: Repository, fields: Sequence[tuple[str, Any]]) -> requests.Response:
    encoder = requests_toolbelt.MultipartEncoder(fields)
    kind = {"Content-Type": encoder.content_type}
    return repository.session.post(repository.url, data=encoder, allow_redirects=False, headers=kind)
