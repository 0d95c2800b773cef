"""Signs and checks with Ed25519 (RFC 8032): who pushes an artifact vouches for it, who fetches trusts named keys only.

A private key is a file in PEM (PKCS #8), which openssl reads too; its stem is the name that signatures carry. A public
key is 32 bytes in base64, short enough for a settings file.
"""

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from vllm_wheels.core.errors import SettingsError

OF_OTHERS = 0o077


@dataclass(frozen=True)
class SigningKey:
    """A private key, and the name under which others know its public half."""

    name: str
    _private: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """What others put into their settings."""
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, data: bytes) -> str:
        """The signature, in base64."""
        return base64.b64encode(self._private.sign(data)).decode()


def generate(path: Path) -> SigningKey:
    """Makes a new key and writes it to a file that only its owner reads; FileExistsError where there is one."""
    private = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return SigningKey(path.stem, private)


def read_key(path: Path) -> SigningKey:
    """The private key in a file.

    Raises:
        SettingsError: it cannot be read, is no Ed25519 key, or others may read it.
    """
    what = f"{path} cannot be signed with"
    remedy = "make a key with vllm-wheels store keygen, and name it in store.signing_key"
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
        private = load_pem_private_key(text, password=None)
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it holds no private key without a password, in PEM"
        raise SettingsError(what, why=why, remedy=remedy) from error
    if mode & OF_OTHERS:
        raise SettingsError(what, why="other users may read it", remedy=f"chmod 600 {path}")
    if not isinstance(private, Ed25519PrivateKey):
        raise SettingsError(what, why="it is no Ed25519 key", remedy=remedy)
    return SigningKey(path.stem, private)


def is_signed(data: bytes, signature: str, public: str) -> bool:
    """Whether a public key's owner signed the data.

    Raises:
        SettingsError: the public key is none.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
    except (ValueError, binascii.Error) as error:
        what = f"{public!r} is no public key"
        remedy = "copy the line that vllm-wheels store keygen printed into store.trusted_keys"
        raise SettingsError(what, why="it is not 32 bytes in base64", remedy=remedy) from error
    try:
        key.verify(base64.b64decode(signature, validate=True), data)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True
