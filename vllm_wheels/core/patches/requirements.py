"""Rewrites upstream's requirements into those of a wheel that a package index accepts and an installer can meet.

Local versions (``torch==2.13.0+cpu``) are not on the public index; ``torch==2.13.0`` is met by ``2.13.0+cpu`` as
well, and installers prefer that where PyTorch's index of CPU builds is added. URL requirements are refused by the
public index.

Requirements that can never apply where the wheel installs (x86-64 Linux) are left out: a second pin of torch for macOS
only makes resolvers that lock for all platforms fork. Those that can apply keep their markers as upstream wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.formats.markers import applies
from vllm_wheels.core.settings import Settings

TORCH = "torch"
TORCH_FAMILY = frozenset({"torch", "torchvision", "torchaudio"})


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The requirements of a wheel.

    Attributes:
        kept: rewritten, in upstream's order, each once.
        dropped: left out, as upstream wrote them.
    """

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    notices: tuple[str, ...]


def rewritten(lines: Sequence[str], *, settings: Settings, pythons: Sequence[str], release: str) -> Requirements:
    """The requirements of the wheel, from the lines of a requirements file without comments and includes.

    Raises:
        PatchError: a line is not a requirement.
    """
    kept: dict[str, None] = {}
    dropped: list[str] = []
    notices: dict[str, None] = {}
    for line in lines:
        if line.startswith("-"):
            # An option of pip, such as an index; metadata has no place for it.
            continue
        requirement = _parsed(line, release)
        if not applies(requirement, pythons):
            dropped.append(line)
        elif requirement.url:
            dropped.append(line)
            notices[_url_notice(requirement)] = None
        else:
            if notice := _rewrite(requirement, settings):
                notices[notice] = None
            kept[str(requirement)] = None
    return Requirements(kept=tuple(kept), dropped=tuple(dropped), notices=tuple(notices))


def _parsed(line: str, release: str) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        what = f"a requirement of vLLM {release} cannot be read"
        why = f"{line!r} is not of the form that PEP 508 describes"
        raise PatchError(
            what, why=why, remedy="build a release that is supported (vllm-wheels release list)"
        ) from error


def _url_notice(requirement: Requirement) -> str:
    return (
        f"{requirement.name} is not required, though upstream requires it from a URL, which package indexes refuse: "
        f"who wants it installs it beside the wheel"
    )


def _rewrite(requirement: Requirement, settings: Settings) -> str | None:
    name = canonicalize_name(requirement.name)
    wanted = settings.torch.version
    if name == TORCH and wanted:
        requirement.specifier = SpecifierSet(f"=={wanted.partition('+')[0]}{_local(requirement)}")
    elif name in TORCH_FAMILY and wanted and requirement.specifier:
        notice = f"{name} is required in any version: upstream's {requirement.specifier} belongs to another torch"
        requirement.specifier = SpecifierSet()
        return notice
    if settings.wheel.torch_requirement == "plain":
        requirement.specifier = SpecifierSet([_plain(specifier) for specifier in requirement.specifier])
    return None


def _local(requirement: Requirement) -> str:
    return next((f"+{local}" for spec in requirement.specifier if (local := spec.version.partition("+")[2])), "")


def _plain(specifier: Specifier) -> Specifier:
    return Specifier(f"{specifier.operator}{specifier.version.partition('+')[0]}")
