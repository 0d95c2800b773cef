"""Passes the user's package indexes, proxies and certificates on to commands in containers with network access."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vllm_wheels.core.engine.builder import PLACE, Mount

VARIABLES = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|NO_INDEX|TRUSTED_HOST|DEFAULT_TIMEOUT|RETRIES)"
    r"|UV_(INDEX\w*|DEFAULT_INDEX|EXTRA_INDEX_URL|NO_INDEX|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS|HTTP_\w+|OFFLINE)"
    r"|(http|https|ftp|all|no)_proxy|(HTTP|HTTPS|FTP|ALL|NO)_PROXY"
)
"""Environment variables of pip, uv and everybody's proxies that mean the same on every machine."""

FIND_LINKS = ("PIP_FIND_LINKS", "UV_FIND_LINKS")
"""Variables that name folders of wheels, which a container has to be shown."""

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
"""Variables that name a bundle of certificates, most general first; one bundle serves them all."""


def passed_on() -> dict[str, str]:
    """The user's indexes and proxies, by environment variable."""
    return {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name) and value}


def proxies() -> dict[str, str]:
    """The user's proxies alone, by environment variable."""
    return {name: value for name, value in passed_on().items() if name.lower().endswith("_proxy")}


def shown() -> tuple[dict[str, str], tuple[Mount, ...]]:
    """The environment of a command with network in a container, and the files it speaks of."""
    environment = passed_on()
    mounts: list[Mount] = []
    for name in FIND_LINKS:
        words = [_placed(word, mounts) for word in re.split(r"[\s,]+", os.environ.get(name, "")) if word]
        if words:
            environment[name] = " ".join(words)
    bundle = next((path for name in CERTIFICATES if (path := Path(os.environ.get(name, ""))).is_file()), None)
    if bundle:
        place = f"{PLACE}/certificates.pem"
        mounts.append(Mount(source=bundle.resolve(), place=place))
        environment |= dict.fromkeys(CERTIFICATES, place)
    return environment, tuple(mounts)


def _placed(word: str, mounts: list[Mount]) -> str:
    parts = urlsplit(word)
    if parts.scheme not in ("", "file"):
        return word
    folder = Path(unquote(parts.path) if parts.scheme else word).expanduser().resolve()
    if not folder.is_dir():
        return word
    known = next((mount.place for mount in mounts if mount.source == folder), None)
    if known:
        return known
    mounts.append(Mount(source=folder, place=f"{PLACE}/find-links/{len(mounts)}"))
    return mounts[-1].place
