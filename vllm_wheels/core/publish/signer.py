"""The signing process: signs one file with the job's OIDC identity and writes the attestation (PEP 740) beside it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pypi_attestations import Attestation, Distribution
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityError, IdentityToken, detect_credential
from sigstore.sign import SigningContext

from vllm_wheels.core.publish.sources import Found, as_job, find, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the attestation, or prints the reason why not and returns 1."""
    options = parser()
    options.add_argument("--sigstore", type=Path, help="trust configuration; default: the public instance's")
    options.add_argument("file", type=Path)
    options.add_argument("attestation", type=Path)
    given = options.parse_args(arguments)
    found = find(given)
    try:
        _sign(found, given.file, given.attestation, given.sigstore)
    except Exception as error:  # noqa: BLE001 - whatever a library says is redacted before anybody reads it
        lines = [line for line in str(error).splitlines() if line.strip()]
        sys.stdout.write(found.redact(f"{type(error).__name__}: {lines[-1] if lines else 'no reason'}\n"))
        return 1
    return 0


def _sign(found: Found, file: Path, attestation: Path, own: Path | None) -> None:
    as_job(found)
    identity = detect_credential()
    if identity is None:
        message = "the job has no OIDC identity"
        raise IdentityError(message)
    trust = ClientTrustConfig.from_json(own.read_text("utf-8")) if own else ClientTrustConfig.production()
    with SigningContext.from_trust_config(trust).signer(IdentityToken(identity)) as signer:
        signed = Attestation.sign(signer, Distribution.from_file(file))
    attestation.write_text(signed.model_dump_json(), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
