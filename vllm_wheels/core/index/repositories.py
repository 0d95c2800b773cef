"""Which package indexes there are to publish to: those of the settings, and the two that twine knows."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from pypi_simple import PYPI_SIMPLE_ENDPOINT
from requests.utils import get_netrc_auth
from twine.utils import DEFAULT_REPOSITORY, TEST_REPOSITORY

from vllm_wheels.core.errors import UnknownRepositoryError
from vllm_wheels.core.settings import RepositorySettings, Settings
from vllm_wheels.core.texts import redacted, without_credentials

KNOWN = {
    "pypi": (DEFAULT_REPOSITORY, PYPI_SIMPLE_ENDPOINT),
    "testpypi": (TEST_REPOSITORY, urljoin(TEST_REPOSITORY, "/simple/")),
}
"""Upload URL and simple API by name; the addresses are the libraries' own."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A package index to publish to."""

    name: str  # in the settings
    upload_url: str  # where files are sent
    simple_url: str  # its simple API, without credentials
    user: str  # that goes with a token
    token_variable: str  # template of the variable's name
    public_rules: bool  # it has the public index's rules (index_rules.toml)
    attest: bool  # uploads are signed where there is an OIDC identity
    sigstore: Path | None = None  # trust configuration of the Sigstore instance that signs; None for the public one
    # User and password of its simple API, from the settings or the user's netrc; never printed
    reader: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """Its simple API as it may be shown."""
        return redacted(self.simple_url)


def repository(settings: Settings, name: str) -> Repository:
    """The repository of a name."""
    configured = settings.publish.repositories
    if name not in configured and name not in KNOWN:
        near = get_close_matches(name, [*configured, *KNOWN], n=1)
        what = f"there is no repository {name!r}"
        why = f"known: {', '.join(sorted({*configured, *KNOWN}))}"
        remedy = f"write {near[0]}" if near else f"describe it in the settings: [publish.repositories.{name}]"
        raise UnknownRepositoryError(what, why=why, remedy=remedy)
    given = configured.get(name, RepositorySettings())
    upload, simple = KNOWN.get(name, (None, None))
    upload_url = _url(given.upload_url or upload, name, "upload_url")
    if without_credentials(upload_url)[1]:
        why = f"publish.repositories.{name}.upload_url holds a password"
        raise _unusable(name, why=why, remedy="take it out; the token comes by environment")
    simple_url, reader = without_credentials(_url(given.simple_url or simple, name, "simple_url").rstrip("/") + "/")
    return Repository(
        name=name,
        upload_url=upload_url,
        simple_url=simple_url,
        reader=reader or get_netrc_auth(simple_url),
        user=given.user,
        token_variable=given.token_variable,
        public_rules=given.rules == "public",
        attest=given.attest,
        sigstore=given.sigstore,
    )


def _url(url: str | None, name: str, key: str) -> str:
    place = f"publish.repositories.{name}.{key}"
    if url is None or urlsplit(url).scheme not in {"http", "https"}:
        why = f"{place} is not a URL" if url else f"{place} is not set"
        raise _unusable(name, why=why, remedy=f"set {place} to an http or https address")
    return url


def _unusable(name: str, *, why: str, remedy: str) -> UnknownRepositoryError:
    return UnknownRepositoryError(f"repository {name} cannot be used", why=why, remedy=remedy)
