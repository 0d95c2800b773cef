"""Says what an environment shall hold: a release's own demands, with the torch that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from vllm_wheels.core.artifacts.torch_env.locking import Backend
from vllm_wheels.core.builders import compiler_cache
from vllm_wheels.core.errors import CudaTorchError, EnvironmentResolutionError, SettingsError
from vllm_wheels.core.patches.upstream import Upstream
from vllm_wheels.core.settings import Settings, TorchSettings
from vllm_wheels.core.target import Target


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """What an environment shall hold, before the index is asked.

    Attributes:
        requirements: requirement lines without torch's companions.
        companions: requirement lines of torchvision and the like, by canonical name.
        compiler_cache: requirement lines of what only makes compiling faster.
        any_python: whether what is resolved for one Python serves all.
        backend: whether PyTorch's own index is to be asked as well.
        left_out: packages that the user's settings leave out.
        notices: what the user must be told whatever the index says.
        deviations: those of them that make the environment another than the release demands.
    """

    artifact: str
    python: str
    requirements: tuple[str, ...]
    companions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    compiler_cache: tuple[str, ...] = ()
    any_python: bool = False
    backend: Backend = None
    left_out: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """All requirement lines."""
        return self.lines_with(self.companions)

    def lines_with(self, companions: Iterable[str]) -> tuple[str, ...]:
        """The requirement lines without the companions that are not named."""
        offered = (line for name in companions for line in self.companions[name])
        return (*self.requirements, *self.compiler_cache, *offered)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names of what is asked for; versions of what that brings along decide nothing that is compiled."""
        return tuple(dict.fromkeys(canonicalize_name(Requirement(line).name) for line in self.requirements))


def torch_spec(target: Target, upstream: Upstream, settings: Settings) -> EnvironmentSpec:
    """What the environment that vLLM is compiled in shall hold.

    Raises:
        SettingsError: ``torch.packages`` or ``torch.version`` make no sense.
        CudaTorchError: ``torch.version`` names a CUDA build.
        EnvironmentResolutionError: the release demands something that is not a requirement.
    """
    family = tuple(canonicalize_name(name) for name in TorchSettings().packages)
    wanted = tuple(canonicalize_name(name) for name in settings.torch.packages)
    if "torch" not in wanted:
        what = "torch.packages leaves torch itself out"
        raise SettingsError(what, why="vLLM is compiled against torch", remedy='write torch.packages = ["torch", ...]')
    pin = _pin(settings.torch.version or upstream.torch)
    left_out = tuple(name for name in family if name not in wanted)
    others = [line for line in upstream.build_requirements if _name(line) not in {*family, *wanted}]
    companions: dict[str, tuple[str, ...]] = {name: _lines(name, upstream) for name in wanted if name != "torch"}
    left = [f"left out of the environment, as torch.packages says: {', '.join(left_out)}"] if left_out else []
    other = []
    if pin.base_version != Version(upstream.torch).base_version:
        other.append(
            f"torch {pin} in place of {upstream.torch}, which vLLM {upstream.release} pins, as torch.version says"
        )
    return EnvironmentSpec(
        artifact="torch_env",
        python=target.python,
        requirements=(*sorted(set(others)), f"torch=={pin}+cpu"),
        companions=companions,
        compiler_cache=compiler_cache.requirements(settings.builder),
        backend="cpu" if settings.torch.backend == "cpu" else None,
        left_out=left_out,
        notices=(*left, *other),
        deviations=tuple(other),
    )


def _pin(text: str) -> Version:
    try:
        version = Version(text)
    except InvalidVersion as error:
        what = f"torch.version is {text!r}"
        raise SettingsError(
            what, why="that is not a version", remedy="write it like 2.13.0, or leave it out"
        ) from error
    if version.local not in (None, "cpu"):
        what = f"torch.version asks for {text}"
        raise CudaTorchError(
            what, why="only CPU builds of torch are used", remedy=f"write torch.version = {version.public!r}"
        )
    return Version(version.public)


def _name(line: str) -> str:
    try:
        return canonicalize_name(Requirement(line).name)
    except InvalidRequirement as error:
        what = f"the release demands {line!r}, which is not a requirement"
        why = str(error).splitlines()[0]
        raise EnvironmentResolutionError(
            what, why=why, remedy="correct the requirements file of the source tree"
        ) from error


def _lines(name: str, upstream: Upstream) -> tuple[str, ...]:
    found = (line for line in (*upstream.build_requirements, *upstream.runtime_requirements) if _name(line) == name)
    return tuple(sorted(set(found))) or (name,)
