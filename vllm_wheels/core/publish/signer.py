"""The signing process: signs one file with the job's OIDC identity and writes the attestation (PEP 740) beside it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pypi_attestations import Attestation, Distribution
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityError, IdentityToken, detect_credential
from sigstore.sign import SigningContext

from vllm_wheels.core.host.ownership import end_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the attestation, or ends with an exception whose last line is the reason."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True, help="process with which this one ends")
    parser.add_argument("--sigstore", type=Path, help="trust configuration; default: the public instance's")
    parser.add_argument("file", type=Path)
    parser.add_argument("attestation", type=Path)
    given = parser.parse_args(arguments)
    end_with(given.parent)
    identity = detect_credential()
    if identity is None:
        message = "the job has no OIDC identity"
        raise IdentityError(message)
    own: Path | None = given.sigstore
    trust = ClientTrustConfig.from_json(own.read_text("utf-8")) if own else ClientTrustConfig.production()
    with SigningContext.from_trust_config(trust).signer(IdentityToken(identity)) as signer:
        attestation = Attestation.sign(signer, Distribution.from_file(given.file))
    given.attestation.write_text(attestation.model_dump_json(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
