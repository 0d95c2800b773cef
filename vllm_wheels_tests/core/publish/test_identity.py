"""Trusted publishing and attestations: a job with an OIDC identity needs no token, and can sign."""

from __future__ import annotations

import json
import os

import pytest
from pypi_attestations import Attestation
from sigstore.models import ClientTrustConfig
from sigstore.verify import Verifier, policy

from vllm_wheels.core.errors import AlteredWheelError, CredentialsError, PublicationError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.publish import attest
from vllm_wheels.core.publish import release as publishing
from vllm_wheels.core.publish.sources import IDENTITY
from vllm_wheels_tests.fixtures.certificate import self_signed
from vllm_wheels_tests.fixtures.front import AUDIENCE, MINTED, fronted
from vllm_wheels_tests.fixtures.identity import REQUEST_TOKEN, SUBJECT, identity_provider
from vllm_wheels_tests.fixtures.publishing import TOKEN
from vllm_wheels_tests.fixtures.sigstore import sigstore


@pytest.fixture
def front(backend, tmp_path, monkeypatch):
    """By TLS, without which twine shows no index an identity."""
    for path in backend.packages.iterdir():
        path.unlink()
    certificate = self_signed(tmp_path / "loopback.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with fronted(backend, certificate=certificate) as server:
        yield server


@pytest.fixture
def provider(context, monkeypatch):
    """Who vouches for the job, which has no token."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with identity_provider() as running:
        context.environ = running.environment
        yield running


@pytest.fixture
def signing(context, provider, tmp_path):
    """A Sigstore instance that the index's attestations come from."""
    with sigstore() as running:
        context.repositories["real"] |= {"attest": True, "sigstore": str(running.trust(tmp_path))}
        yield running


def written(context) -> bytes:
    """All that publishing left in files, and said."""
    files = [path.read_bytes() for path in context.folder.rglob("*") if path.is_file()]
    return b"".join([*files, *(line.encode() for line in context.said)])


def test_job_with_an_identity_needs_no_token(context, front, provider):
    """The index names its audience, the provider vouches for the job, and the index gives a short-lived token."""
    context.publish()
    assert front.stored() == context.hashes()
    assert set(provider.asked) == {AUDIENCE}
    assert not [secret for secret in (REQUEST_TOKEN, MINTED) if secret.encode() in written(context)]


def test_job_that_the_index_does_not_know_publishes_nothing(context, front, provider):
    """An identity for which no trusted publisher is registered is refused before anything is sent."""
    front.publisher = "repo:somebody/else:environment:release"
    with pytest.raises(CredentialsError, match="does not accept this job's identity") as caught:
        context.publish()
    assert "not a registered publisher" in caught.value.why
    assert "trusted publisher" in caught.value.remedy
    assert front.uploads == []


def test_attestation_speaks_of_the_very_bytes_and_can_be_verified(context, front, provider, signing, tmp_path):
    """What the index gets is signed by the job's identity, logged, and names the file and its hash (PEP 740)."""
    context.publish()
    ((attestation,),) = [json.loads(text) for text in front.fields["attestations"]]
    trust = ClientTrustConfig.from_json((tmp_path / "sigstore.json").read_text())
    bundle = Attestation.model_validate(attestation).to_bundle()
    signer = policy.Identity(identity=f"https://example.org/{SUBJECT}", issuer=provider.url)
    _, payload = Verifier(trusted_root=trust.trusted_root).verify_dsse(bundle, signer)
    subjects = {each["name"]: each["digest"]["sha256"] for each in json.loads(payload)["subject"]}
    assert subjects == front.stored() == context.hashes()
    assert sorted(set(provider.asked)) == [AUDIENCE, "sigstore"]
    assert len(signing.entries) == 1
    assert REQUEST_TOKEN.encode() not in written(context)


def test_job_with_a_token_and_no_identity_uploads_unsigned(context, front):
    """Signing is wished for, but on a machine without an identity the release goes up all the same."""
    context.repositories["real"]["attest"] = True
    context.publish()
    assert front.stored() == context.hashes()
    assert "attestations" not in front.fields


def test_attestation_of_other_bytes_is_not_uploaded(context, front, provider, signing, monkeypatch):
    """A file that was exchanged while it was being signed stops the release."""
    sound = attest.attestations

    def exchanged(copy, *arguments, **named):
        copy.write_bytes(copy.read_bytes() + b"\0")
        return sound(copy, *arguments, **named)

    monkeypatch.setattr(publishing, "attestations", exchanged)
    with pytest.raises(AlteredWheelError, match="speaks of another file"):
        context.publish()
    assert front.uploads == []


def _no_provider(context):
    context.environ = {**context.environ, "PUBLISH_TOKEN_VLLM_CPU": TOKEN, IDENTITY[0]: "http://127.0.0.1:9/?version=1"}


def _no_sigstore(context):
    context.repositories["real"]["sigstore"] = "/nowhere.json"


@pytest.mark.usefixtures("signing")
@pytest.mark.parametrize("spoil", [_no_provider, _no_sigstore])
def test_signing_that_fails_is_told_in_a_line(context, front, spoil):
    """Where signing is wished for and cannot be done, nothing goes up unsigned."""
    spoil(context)
    with pytest.raises(PublicationError, match="cannot be signed") as caught:
        context.publish()
    assert "\n" not in caught.value.why
    assert REQUEST_TOKEN not in str(caught.value)
    assert front.uploads == []


@pytest.mark.usefixtures("signing")
def test_signing_without_the_library_names_what_to_install(context, front, monkeypatch):
    """The library that signs is an extra, and the message says how to get it."""
    monkeypatch.setattr(attest, "LIBRARY", "no_such_library")
    with pytest.raises(PublicationError, match="cannot be signed") as caught:
        context.publish()
    assert "vllm-wheels[attest]" in caught.value.remedy
    assert front.uploads == []


def test_no_process_inherits_a_token(monkeypatch):
    """A compiler, uv or the tried wheel itself sees no token, whatever the user exported."""
    names = ("PUBLISH_TOKEN_VLLM_CPU", "TWINE_PASSWORD", "UV_PUBLISH_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    for name in (*names, "VLLM_WHEELS_PUBLISH__REPOSITORIES"):
        monkeypatch.setenv(name, TOKEN)
    assert TOKEN in os.environ.values()
    finished = Runner().run(["env"], timeout_seconds=10, keep_output=True)
    assert TOKEN not in finished.output
