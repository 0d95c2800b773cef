"""Locks requirements with hashes through uv, and refuses a lock that holds a part of CUDA.

The lock is a requirements file and not a pylock.toml (PEP 751). From the latter uv 0.13 installs only for the Python it
runs on, not for ``--python-version``; and that names every file by its address, so that a mirror, or another machine's
folder, would change the key of the environment, and a rebuild elsewhere would ask for addresses that are not there.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from uv import find_uv_bin

from vllm_wheels.core.errors import (
    CudaTorchError,
    DiskSpaceError,
    EnvironmentResolutionError,
    IndexUnreachableError,
    StepTimeoutError,
)
from vllm_wheels.core.host.commands import UV, Invocation
from vllm_wheels.core.host.processes import Finished, Runner
from vllm_wheels.core.index.arguments import CPU_INDEX, UNREACHABLE

PLATFORM = "x86_64-manylinux_2_28"
"""What uv resolves for: the platform of the official builder image; newer builders take these wheels as well."""

Backend = Literal["cpu"] | None
"""uv's ``--torch-backend``: with ``cpu`` torch and its companions come from PyTorch's own index of CPU builds."""

LIMIT_ANSWERS = 20
"""A run of uv may last this many times the limit of one answer of the index."""

FULL_DISK = "No space left on device"

OFFER_CPU_TORCH = 'set torch.backend = "cpu", or offer a +cpu wheel of torch through index.find_links'

CUDA_PACKAGE = re.compile(r"(nvidia|cuda)-.+|(pytorch-)?triton(-.+)?")
"""Names of packages that are parts of CUDA or made for it, unless their version ends in ``+cpu``."""

DECISIVE = re.compile(r"Because|Hash mismatch")
"""How the line begins in which uv says why; without one, its first two lines do."""

UV_MARK = re.compile(r"^\W*(error|cause|hint)?:?\s*")


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One package of a lock; its origin is the index or place it was resolved from, empty where uv did not say."""

    name: str
    version: Version
    origin: str

    @property
    def is_cpu_build(self) -> bool:
        """Whether a package of PyTorch's family is certainly a CPU build.

        PyTorch marks CPU builds for x86-64 with the local version ``cpu``; its index of CPU builds holds nothing else.
        What says neither is CUDA's: the plain package index has torchvision and torchaudio in that build only, under
        versions that satisfy a CPU torch as well, and they fail when they are imported beside it.
        """
        return self.version.local == "cpu" or bool(CPU_INDEX.search(self.origin))


@dataclass(frozen=True, kw_only=True)
class Lock:
    """Exact versions with hashes: as a requirements file without comments, and by name."""

    text: str
    packages: tuple[Locked, ...]

    @classmethod
    def parse(cls, output: str) -> Lock:
        """Reads what ``uv pip compile --emit-index-annotation`` wrote, or the text of an earlier lock.

        Raises:
            EnvironmentResolutionError: a line pins no version, as for a requirement that is a URL.
        """
        packages: list[Locked] = []
        kept = []
        for line in output.splitlines():
            comment = line.strip()
            if comment.startswith("#"):
                if packages and comment.startswith("# from "):
                    packages[-1] = replace(packages[-1], origin=comment.removeprefix("# from "))
                continue
            kept.append(line)
            if line and not line[0].isspace():
                packages.append(_pinned(line))
        return cls(text="".join(f"{line}\n" for line in kept), packages=tuple(packages))

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def find(self, name: str) -> Locked | None:
        """The package of that name."""
        return next((package for package in self.packages if package.name == canonicalize_name(name)), None)

    def listing(self) -> list[list[str]]:
        """Name and version of every package, as plain JSON."""
        return [[package.name, str(package.version)] for package in self.packages]


def _pinned(line: str) -> Locked:
    try:
        requirement = Requirement(line.rstrip("\\ "))
        (pin,) = requirement.specifier
        return Locked(name=canonicalize_name(requirement.name), version=Version(pin.version), origin="")
    except ValueError as error:
        what = f"uv's lock pins no version in {line.split(maxsplit=1)[0]!r}"
        why = "an environment is made of released wheels with hashes"
        remedy = "replace the requirement by a version that the index has"
        raise EnvironmentResolutionError(what, why=why, remedy=remedy) from error


def lock(
    requirements: Sequence[str],
    *,
    python: str,
    index: Sequence[str],
    backend: Backend,
    answer_seconds: float,
    environ: Mapping[str, str],
    retries: int | None = None,
) -> Lock:
    """Resolves requirements for one Python on Linux x86-64; wheels only, nothing is built or downloaded whole.

    With backend ``cpu`` PyTorch's own index is asked as well; see ``uv_command`` for the limits.

    Raises:
        IndexUnreachableError: an index did not answer.
        EnvironmentResolutionError: no set of packages meets the requirements.
    """
    with TemporaryDirectory(prefix="vllm-wheels-lock-") as folder:
        wanted, answer = Path(folder, "requirements.in"), Path(folder, "lock.txt")
        wanted.write_text("".join(f"{line}\n" for line in requirements), "utf-8")
        formats = ("--no-header", "--generate-hashes", "--emit-index-annotation", "--output-file", str(answer))
        command = uv_command(
            ["pip", "compile", *formats, *uv_target(python, backend), *index, str(wanted)],
            answer_seconds=answer_seconds,
            environ=environ,
            retries=retries,
        )
        what = f"the packages of the environment for Python {python} cannot be resolved"
        start_uv(command, Runner(), what=what, limit_seconds=answer_seconds * LIMIT_ANSWERS)
        return Lock.parse(answer.read_text("utf-8"))


def uv_target(python: str, backend: Backend) -> list[str]:
    """Arguments that make uv choose wheels for one Python on Linux x86-64, whatever it runs on itself."""
    chosen = ["--torch-backend", backend] if backend else []
    platform = ["--python-version", python, "--python-platform", PLATFORM]
    return ["--python", sys.executable, *platform, "--no-build", *chosen]


def uv_command(
    arguments: Sequence[str], *, answer_seconds: float, environ: Mapping[str, str], retries: int | None = None
) -> Invocation:
    """A command of uv, as plans hold it; uv's own variables in ``environ`` win over the limits given here."""
    wishes = {"UV_HTTP_TIMEOUT": str(max(1, round(answer_seconds)))}
    if retries is not None:
        wishes["UV_HTTP_RETRIES"] = str(retries)
    changes = {name: value for name, value in wishes.items() if name not in environ}
    return Invocation(argv=(UV, *arguments, "--quiet", "--color", "never"), environment=changes)


def start_uv(command: Invocation, runner: Runner, *, what: str, limit_seconds: float) -> Finished:
    """Runs a command of ``uv_command`` with a time limit; ``what`` begins its error, should it fail.

    Raises:
        IndexUnreachableError: an index did not answer.
        DiskSpaceError: the disk is full.
        EnvironmentResolutionError: uv failed for another reason.
    """
    real = command.filled({UV: find_uv_bin()})
    try:
        finished = runner.run(real.argv, env=real.environment, timeout_seconds=limit_seconds, keep_output=True)
    except StepTimeoutError as error:
        raise IndexUnreachableError(
            what, why=error.why, remedy="raise index.timeout_seconds, or look after the network"
        ) from error
    if finished.status:
        raise _failure(what, finished.output)
    return finished


def _failure(what: str, output: str) -> EnvironmentResolutionError | IndexUnreachableError | DiskSpaceError:
    lines = [text for line in output.splitlines() if (text := UV_MARK.sub("", line))] or ["uv gave no reason"]
    decisive = next((line for line in lines if DECISIVE.match(line)), None)
    if FULL_DISK in output:
        return DiskSpaceError(
            what, why=FULL_DISK, remedy="free space where state_folder and uv's cache are (uv cache dir)"
        )
    if decisive is None and UNREACHABLE.search(output):
        place = next((line for line in lines if line.startswith("Failed to fetch")), lines[0])
        why = place if place == lines[-1] else f"{place} ({lines[-1]})"
        remedy = "check the network, or name another index: index.url, index.find_links"
        return IndexUnreachableError(what, why=why, remedy=remedy)
    remedy = "offer a wheel that fits through index.url, index.extra_urls or index.find_links"
    return EnvironmentResolutionError(what, why=decisive or ": ".join(lines[:2]), remedy=remedy)


def refuse_cuda(locked: Lock) -> None:
    """Raises CudaTorchError, before anything big is downloaded, for a lock without CPU torch or with a part of CUDA."""
    torch = locked.find("torch")
    if torch is None or torch.version.local != "cpu":
        found = f"torch {torch.version}" if torch else "no torch at all"
        what = "the environment would not hold CPU torch"
        raise CudaTorchError(what, why=f"uv resolved {found}", remedy=OFFER_CPU_TORCH)
    parts = [
        f"{p.name} {p.version}" for p in locked.packages if CUDA_PACKAGE.fullmatch(p.name) and p.version.local != "cpu"
    ]
    if parts:
        what = "the environment would hold parts of CUDA"
        raise CudaTorchError(what, why=f"uv resolved {', '.join(parts)}", remedy=OFFER_CPU_TORCH)
