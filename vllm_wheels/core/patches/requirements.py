"""Rewrites upstream's requirements into those of a wheel that a package index accepts and an installer can meet.

Local versions (``torch==2.13.0+cpu``) are not on the public index; ``torch==2.13.0`` is met by ``2.13.0+cpu`` as
well, and installers prefer that where PyTorch's index of CPU builds is added. URL requirements are refused by the
public index.

torch is required in the one version that the wheel is compiled against, however upstream writes it: its extensions are
bound to that. The distribution ``vllm`` is what the wheel stands for: nothing may pull it in beside the wheel, for both
own the package ``vllm``.

Requirements that can never apply where the wheel installs (x86-64 Linux) are left out: a second pin of torch for macOS
only makes resolvers that lock for all platforms fork. Those that can apply keep their markers as upstream wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name

from vllm_wheels.core.errors import PatchError
from vllm_wheels.core.formats.markers import applies
from vllm_wheels.core.formats.requirement_files import pinned
from vllm_wheels.core.patches.upstream import CPU, Upstream
from vllm_wheels.core.settings import Settings

UPSTREAM = "vllm"
PLUGINS = "vllm-"
"""How names of packages begin that extend vLLM and so require the distribution ``vllm``, as vllm-gguf-plugin does."""

TORCH = "torch"
TORCH_FAMILY = frozenset({"torch", "torchvision", "torchaudio"})


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The requirements of a wheel.

    Attributes:
        kept: rewritten, in upstream's order, each once.
        dropped: left out, as upstream wrote them.
        notices: what the user must be told of both.
    """

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What requirements are rewritten for: a release, the distribution that it becomes, the user's settings."""

    upstream: Upstream
    distribution: str
    settings: Settings

    def runtime(self) -> Requirements:
        """The requirements of the wheel itself; torch among them, for the wheel is compiled against it."""
        lines = self.upstream.runtime_requirements
        named = any(canonicalize_name(each.name) == TORCH for _, each in self._applying(lines))
        found = self.rewritten(lines if named else (*lines, f"{TORCH}=={self._torch}"))
        if named:
            return found
        notice = f"torch {self._torch} is required, which the wheel is compiled against, though {CPU} does not name it"
        return Requirements(kept=found.kept, dropped=found.dropped, notices=(*found.notices, notice))

    def rewritten(self, lines: Sequence[str]) -> Requirements:
        """The requirements from the lines of a requirements file without comments and includes, or of an extra.

        Raises:
            PatchError: a line is not a requirement.
        """
        applying = dict(self._applying(lines))
        kept: dict[str, None] = {}
        dropped = [line for line in lines if line not in applying and not line.startswith("-")]
        notices: dict[str, None] = {}
        for line, requirement in applying.items():
            if why := _refusal(requirement):
                dropped.append(line)
                notices[why] = None
                continue
            if notice := self._rewrite(requirement):
                notices[notice] = None
            kept[str(requirement)] = None
        dropped.sort(key=list(lines).index)
        return Requirements(kept=tuple(kept), dropped=tuple(dropped), notices=tuple(notices))

    @property
    def _torch(self) -> str:
        return (self.settings.torch.version or self.upstream.torch).partition("+")[0]

    def _applying(self, lines: Sequence[str]) -> Iterator[tuple[str, Requirement]]:
        for line in lines:
            # An option of pip, such as an index; metadata has no place for it.
            if line.startswith("-"):
                continue
            requirement = _parsed(line, self.upstream.release)
            if applies(requirement, self.upstream.pythons):
                yield line, requirement

    def _rewrite(self, requirement: Requirement) -> str | None:
        name = canonicalize_name(requirement.name)
        settings = self.settings
        if name == UPSTREAM:
            # Extras of its own. The version that is being installed is always the right one.
            requirement.name, requirement.specifier = self.distribution, SpecifierSet()
            return None
        if UPSTREAM in {canonicalize_name(each) for each in requirement.extras}:
            requirement.extras = {each for each in requirement.extras if canonicalize_name(each) != UPSTREAM}
            return f"{name} is required without its extra [{UPSTREAM}], which pulls in the distribution {UPSTREAM}"
        if name == TORCH:
            return self._rewrite_torch(requirement)
        if name in TORCH_FAMILY and settings.torch.version and requirement.specifier:
            notice = f"{name} is required in any version: upstream's {requirement.specifier} belongs to another torch"
            requirement.specifier = SpecifierSet()
            return notice
        if settings.wheel.torch_requirement == "plain":
            requirement.specifier = SpecifierSet([_plain(specifier) for specifier in requirement.specifier])
        return None

    def _rewrite_torch(self, requirement: Requirement) -> str | None:
        asked, pin = requirement.url or str(requirement.specifier) or "any version", pinned(requirement)
        local = f"+{pin.local}" if pin and pin.local else "" if pin else "+cpu"
        requirement.url = None
        with_local = self.settings.wheel.torch_requirement == "local"
        requirement.specifier = SpecifierSet(f"=={self._torch}{local if with_local else ''}")
        if self.settings.torch.version or (pin and pin.public == self._torch):
            return None
        return f"torch {self._torch} is required, which the wheel is compiled against: upstream asks for {asked}"


def _parsed(line: str, release: str) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        what = f"a requirement of vLLM {release} cannot be read"
        why = f"{line!r} is not of the form that PEP 508 describes"
        raise PatchError(
            what, why=why, remedy="build a release that is supported (vllm-wheels release list)"
        ) from error


def _refusal(requirement: Requirement) -> str | None:
    """Why a requirement is left out; None where it is kept."""
    name = canonicalize_name(requirement.name)
    if name.startswith(PLUGINS):
        return (
            f"{name} is not required, though upstream requires it: it pulls in the distribution {UPSTREAM}; "
            f"who wants it installs it beside the wheel, without its requirements"
        )
    if requirement.url and name not in {TORCH, UPSTREAM}:
        return (
            f"{requirement.name} is not required, though upstream requires it from a URL, which package indexes refuse:"
            f" who wants it installs it beside the wheel"
        )
    return None


def _plain(specifier: Specifier) -> Specifier:
    return Specifier(f"{specifier.operator}{specifier.version.partition('+')[0]}")
