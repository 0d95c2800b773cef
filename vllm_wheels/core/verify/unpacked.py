"""An unpacked wheel: what the static checks look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from packaging.requirements import InvalidRequirement, Requirement

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.elf import Binary
from vllm_wheels.core.formats.markers import applies
from vllm_wheels.core.formats.python_ranges import supports
from vllm_wheels.core.formats.wheel_name import OWN_SBOM, WheelName
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.patches.guard_files import GUARD
from vllm_wheels.core.variants import Variant
from vllm_wheels.core.verify.claims import Claim, claim_of

if TYPE_CHECKING:
    # Few checks look at these, and those import the modules themselves: what a check imports is code of its key.
    from vllm_wheels.core.formats.instructions import Scan
    from vllm_wheels.core.settings import Settings

Read = TypeVar("Read")

GENERATOR = "vllm-wheels"

KNOWN = tuple(f"3.{minor}" for minor in range(8, 15))
"""Pythons that vLLM was ever released for; without this end an open ``Requires-Python`` would claim them all."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another wheel of the same release, to compare machine code with."""

    name: str  # of its file
    distribution: str  # normalised name
    variant: str | None  # where it is known
    code: str | None  # hash of its own machine code; None where it has none


@dataclass(frozen=True, kw_only=True)
class UnpackedWheel:
    """A wheel and the folder into which it is unpacked; nothing in it is executed."""

    path: Path  # of the file
    folder: Path  # where it is unpacked
    file: WheelFile  # what it says about itself
    sha256: str
    scan: Scan
    binaries: tuple[Binary, ...]
    variant: Variant | None  # by its name; None where nobody knows
    settings: Settings
    runner: Runner
    by_name: bool = False  # the variant is only what its name says, and nobody asked to judge it as such
    neighbours: tuple[Neighbour, ...] = ()  # other wheels of the same release
    _read: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def distribution(self) -> str:
        """Normalised name, as the file name has it."""
        return WheelName.parse(self.path.name).distribution

    @property
    def version(self) -> str:
        """As the file name has it."""
        return str(WheelName.parse(self.path.name).version)

    @property
    def ours(self) -> bool:
        """Whether vllm-wheels built it: one trace is enough, so that taking out one of them excuses nothing."""
        generator = str(self.file.wheel["Generator"] or "").startswith(GENERATOR)
        return generator or not self.file.members.keys().isdisjoint({GUARD, f"{self.file.dist_info}/{OWN_SBOM}"})

    @property
    def summary(self) -> str:
        """The one line that describes it in METADATA."""
        return summary_of(self.file)

    @property
    def description(self) -> str:
        """The long description of METADATA."""
        payload = self.file.metadata.get_payload(decode=True)
        body = payload.decode("utf-8", errors="replace") if isinstance(payload, bytes) else ""
        return body or str(self.file.metadata["Description"] or "")

    @cached_property
    def claim(self) -> Claim | None:
        """What a wheel of another maker says about its instructions; None where variants.toml is the measure."""
        if self.ours or not self.by_name:
            return None
        return claim_of(self.distribution, self.summary, self.description)

    @property
    def claims(self) -> tuple[str, ...]:
        """Pythons that it claims to run on, lowest first."""
        return claimed(self.file)

    def read(self, reader: Callable[..., Read], *folders: Path) -> Read:
        """The result of a reader of the wheel's file and what else it reads, cached so that all checks share it."""
        if reader not in self._read:
            self._read[reader] = reader(self.path, *folders)
        return cast("Read", self._read[reader])

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """Requirements that can be parsed, those of extras among them; another check convicts the others."""
        found = []
        for line in self.file.metadata.get_all("Requires-Dist", []):
            try:
                found.append(Requirement(str(line)))
            except InvalidRequirement:
                continue
        return tuple(found)

    def required(self, python: str) -> tuple[Requirement, ...]:
        """Requirements that apply to Linux on x86-64 with a Python, without extras."""
        return tuple(each for each in self.requirements if applies(each, [python]))

    def tool(self, command: Invocation, *, timeout_seconds: float) -> Finished:
        """Runs a program beside the unpacked wheel, not in the caller's folder.

        What lies in that one would be taken for modules or settings; besides, auditwheel changes this process's own.
        """
        return self.runner.run(
            command.argv,
            env=command.environment,
            cwd=self.folder.parent,
            timeout_seconds=timeout_seconds,
            keep_output=True,
            quiet=True,
        )

    def text(self, name: str) -> str:
        """A member as text; empty where there is none."""
        path = self.folder / name
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            limit = limits.WHEEL_SOURCE_BYTES if name.endswith(".py") else limits.WHEEL_TEXT_BYTES
            content = stream.read(limit + 1)
        if len(content) > limit:
            what = f"{name} is not read"
            why = f"it has more than {limit // limits.MIB} MiB of text"
            raise CannotVerifyError(what, why=why, remedy="look at the file: no text of vLLM is so long")
        return content.decode("utf-8", "replace")

    def as_neighbour(self) -> Neighbour:
        """This wheel, for the comparison of another wheel of the release with it."""
        return Neighbour(
            name=self.path.name,
            distribution=self.distribution,
            variant=self.variant.name if self.variant else None,
            code=self.scan.sha256 if self.scan.own else None,
        )


def claimed(file: WheelFile) -> tuple[str, ...]:
    """Pythons on which an installer takes it: the file name's tags and Requires-Python both allow them."""
    name, allowed = WheelName.parse(file.path.name), str(file.metadata["Requires-Python"] or "")
    return tuple(python for python in KNOWN if name.installs_on(python) and supports(allowed, python))


def summary_of(file: WheelFile) -> str:
    """``Summary`` of METADATA; empty where there is none."""
    return str(file.metadata["Summary"] or "")
