"""Attestations (PEP 740): made where the job has an OIDC identity, compared with the file, and uploaded with it."""

import base64
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from vllm_wheels.core.errors import AlteredWheelError, PublicationError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.repositories import Repository
from vllm_wheels.core.publish.token import Credentials

SIGNER = "vllm_wheels.core.publish.signer"
LIBRARY = "pypi_attestations"
SUFFIX = ".publish.attestation"
LIMIT_SECONDS = 300.0
REMEDY = "set attest of the repository to false, or look after the network and the job's id-token permission"


def attestations(
    wheel: Path, repository: Repository, *, sha256: str, runner: Runner, credentials: Credentials
) -> tuple[Path, ...]:
    """Signs a file for an index that wants it; nothing where the job has no OIDC identity.

    The attestation is put beside the wheel, and has to speak of the bytes with the hash that was verified.
    """
    if not repository.attest or not credentials.identity:
        return ()
    what = f"{wheel.name} cannot be signed"
    if find_spec(LIBRARY) is None:
        remedy = "pip install 'vllm-wheels[attest]', or set attest of the repository to false"
        raise PublicationError(what, why="pypi-attestations is not installed", remedy=remedy)
    attestation = wheel.with_name(f"{wheel.name}{SUFFIX}")
    own = ["--sigstore", str(repository.sigstore)] if repository.sigstore else []
    finished = runner.run(
        [sys.executable, "-m", SIGNER, *credentials.words(), *own, str(wheel), str(attestation)],
        timeout_seconds=LIMIT_SECONDS,
        quiet=True,
        pass_fds=credentials.descriptors(),
    )
    if finished.status or not attestation.is_file():
        raise PublicationError(what, why=_reason(finished.tail), remedy=REMEDY)
    if (found := _subject(attestation)) != (wheel.name, sha256):
        what = f"the attestation of {wheel.name} speaks of another file"
        raise AlteredWheelError(what, why=f"it is of {found[0]}, sha256 {found[1][:12]}", remedy="publish again")
    return (attestation,)


def _subject(attestation: Path) -> tuple[str, str]:
    """File name and SHA-256 that an attestation speaks of (PEP 740, "Attestation objects")."""
    envelope = json.loads(attestation.read_text("utf-8"))["envelope"]
    (subject,) = json.loads(base64.b64decode(envelope["statement"]))["subject"]
    return subject["name"], subject["digest"]["sha256"]


def _reason(tail: tuple[str, ...]) -> str:
    return next((line.strip() for line in reversed(tail) if line.strip()), "the signing process gave no reason")
