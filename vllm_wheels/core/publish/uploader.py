"""The uploading process: sends one file, or only preflights, through twine, and prints what the index answered as JSON.

It is the only process that has a token, in its environment; nothing of it is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urljoin

import requests
import requests_toolbelt
from id import AmbientCredentialError, detect_credential
from twine.package import PackageFile
from twine.repository import Repository

from vllm_wheels.core.host.ownership import end_with

AUDIENCE, MINT = "/_/oidc/audience", "/_/oidc/mint-token"
"""Where an index exchanges an OIDC identity for a token, by the public index's documentation of trusted publishers."""

TOKEN_USER = "__token__"  # noqa: S105 - a user's name

NO_FILE = "does not have a file"
"""The public index's answer to a form without a file, which it gives before it looks whose project it is."""

NO_FILE_NAME = "preflight"
"""A name without the ending of a package: refused by the public index, but only after it looked whose project it is."""
LONGEST_BODY = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line of JSON: ``status``, ``reason``, ``retry_after`` and ``body``, or ``broke``; always ends well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--parent", type=int, required=True, help="process with which this one ends")
    parser.add_argument("--preflight", action="store_true", help="send everything but the file")
    parser.add_argument("--attestation", action="append", default=[])
    parser.add_argument("file")
    given = parser.parse_args(arguments)
    end_with(given.parent)
    try:
        answer = _send(given)
    except requests.RequestException as error:
        answer = {"broke": type(error).__name__}
    except AmbientCredentialError as error:
        answer = {"status": 401, "reason": f"no OIDC identity: {error}", "retry_after": None, "body": ""}
    print(json.dumps(answer), file=sys.__stdout__, flush=True)
    return 0


def _send(given: argparse.Namespace) -> dict[str, Any]:
    # Progress and notices of twine are not for whoever reads the JSON.
    sys.stdout = sys.stderr
    user, password = os.environ.get("TWINE_USERNAME"), os.environ.get("TWINE_PASSWORD")
    if not password:
        minted = _mint(given.url, given.timeout)
        if "token" not in minted:
            return {"status": 403, "reason": "no trusted publisher", "retry_after": None, "body": minted["message"]}
        user, password = TOKEN_USER, minted["token"]
    repository = Repository(given.url, user, password, disable_progress_bar=True)
    try:
        repository.set_certificate_authority(os.environ.get("TWINE_CERT") or os.environ.get("PIP_CERT"))
        repository.session.request = partial(  # type: ignore[method-assign]  # twine sets no time-out of its own
            repository.session.request, timeout=given.timeout
        )
        package = PackageFile.from_filename(given.file, comment=None)
        if given.attestation:
            package.add_attestations(given.attestation)
        # One attempt: twine would send again at once and without looking whether the file arrived.
        response = _knock(repository, package) if given.preflight else repository.upload(package, max_redirects=1)
    finally:
        repository.close()
    return {
        "status": response.status_code,
        "reason": response.reason,
        "retry_after": response.headers.get("Retry-After"),
        "body": response.text[:LONGEST_BODY],
    }


def _knock(repository: Repository, package: PackageFile) -> requests.Response:
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


def _mint(url: str, timeout: float) -> Mapping[str, str]:
    with requests.Session() as session:
        audience = session.get(urljoin(url, AUDIENCE), timeout=timeout)
        audience.raise_for_status()
        identity = detect_credential(audience.json()["audience"])
        answer = session.post(urljoin(url, MINT), json={"token": identity}, timeout=timeout)
        said = answer.json()
    if answer.ok and said.get("token"):
        return {"token": said["token"]}
    reasons = [error.get("description", "") for error in said.get("errors", [])]
    return {"message": "; ".join(reasons) or said.get("message", "the index gives no token for this identity")}


if __name__ == "__main__":
    sys.exit(main())
