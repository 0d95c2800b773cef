"""Attestations (PEP 740): made by pypi-attestations where the job has an OIDC identity, and uploaded with the file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from vllm_wheels.core.errors import PublicationError
from vllm_wheels.core.publish.repositories import Repository
from vllm_wheels.core.publish.token import IDENTITY
from vllm_wheels.core.runner import Runner

SUFFIX = ".publish.attestation"
LIMIT_SECONDS = 300.0
REMEDY = "set attest of the repository to false, or look after the network and the job's id-token permission"


def attestations(
    wheel: Path, repository: Repository, *, runner: Runner, environ: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """Signs a file for an index that wants it; nothing where the job has no OIDC identity.

    Args:
        wheel: to be signed; the attestation is put beside it.
        repository: says whether it takes attestations.
        runner: starts the signing process, which gets the identity.
        environ: where the identity is; None for this process's own environment.

    Raises:
        PublicationError: it cannot be signed.
    """
    environ = os.environ if environ is None else environ
    identity = {name: environ[name] for name in IDENTITY if environ.get(name)}
    if not repository.attest or len(identity) < len(IDENTITY):
        return ()
    finished = runner.run(
        [sys.executable, "-m", "pypi_attestations", "sign", str(wheel)],
        env=identity,
        timeout_seconds=LIMIT_SECONDS,
        quiet=True,
    )
    attestation = wheel.with_name(f"{wheel.name}{SUFFIX}")
    if finished.status or not attestation.is_file():
        what = f"{wheel.name} cannot be signed"
        raise PublicationError(what, why=_reason(finished.tail, identity), remedy=REMEDY)
    return (attestation,)


def _reason(tail: tuple[str, ...], identity: Mapping[str, str]) -> str:
    line = next((line.strip() for line in reversed(tail) if line.strip()), "pypi-attestations gave no reason")
    return line.replace(identity[IDENTITY[1]], "<token>")
