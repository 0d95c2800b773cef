"""What the configured package index holds of a project, and how a published wheel is fetched from it."""

from collections.abc import Sequence
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version
from pypi_simple import DistributionPackage

from vllm_wheels.core.errors import CannotVerifyError, WheelError
from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.formats.wheel_name import WheelName, rank
from vllm_wheels.core.host.commands import Download
from vllm_wheels.core.host.downloads import download
from vllm_wheels.core.host.http import index_url
from vllm_wheels.core.index.releases import project_page
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.texts import redacted, without_credentials

SHOWN = 8
"""How many versions a message names, the newest first."""


def files_of(settings: Settings, project: str) -> list[DistributionPackage]:
    """All files of a project; none for one that the index does not have."""
    page = project_page(settings, canonicalize_name(project))
    return list(page.packages) if page else []


def wheels_of(packages: Sequence[DistributionPackage], version: str) -> list[DistributionPackage]:
    """The wheels of a version among a project's files."""
    wheels = (package for package in packages if package.package_type == "wheel")
    return [each for each in wheels if (known := version_in(each.version)) and known == version_in(version)]


def fetch(name: str, version: str, folder: Path, settings: Settings, *, python: str | None = None) -> Path:
    """Downloads the wheel of a release that an installer of a Python (this one) would take, and checks its hash.

    Raises:
        CannotVerifyError: the index has no such wheel, or publishes no hash of it.
        SourceError: the file is not the one that was published.
        IndexUnreachableError: the index did not answer.
    """
    packages = files_of(settings, name)
    found = wheels_of(packages, version)
    if not found:
        what = f"there is no wheel of {name} {version}"
        why = f"{redacted(index_url(settings))} does not have it"
        raise CannotVerifyError(what, why=why, remedy=_others(packages))
    chosen = min(found, key=lambda package: rank(package.filename, python))
    sha256 = chosen.digests.get("sha256")
    if sha256 is None:
        what = f"{chosen.filename} cannot be checked"
        remedy = "set index.url to one that does"
        raise CannotVerifyError(what, why="the index publishes no SHA-256 of it", remedy=remedy)
    path = folder / chosen.filename
    url, _ = without_credentials(chosen.url)
    download(Download(url=url, size=chosen.size, sha256=sha256), path, settings=settings)
    return path


def _others(packages: Sequence[DistributionPackage]) -> str:
    known = {str(each.version) for each in packages if each.package_type == "wheel"}
    newest = sorted(known, key=lambda version: version_in(version) or Version("0"), reverse=True)
    shown = ", ".join([*newest[:SHOWN], "..."] if len(newest) > SHOWN else newest)
    return f"choose one of: {shown}" if shown else "check the name"


def pythons_of(packages: Sequence[DistributionPackage], known: Sequence[str]) -> set[str]:
    """The Pythons on which an installer finds a wheel among these."""
    return {python for package in packages for python in known if _installable(package, python)}


def allowed(packages: Sequence[DistributionPackage], known: Sequence[str]) -> set[str]:
    """The Pythons that Requires-Python of any of these allows."""
    return {python for package in packages for python in known if supports(package.requires_python, python)}


def _installable(package: DistributionPackage, python: str) -> bool:
    try:
        name = WheelName.parse(package.filename)
    except WheelError:
        return False
    return name.installs_on(python) and supports(package.requires_python, python)
