"""Decides where a wheel is installed and run: on this host, or in a container of the image that built it."""

import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from packaging.tags import platform_tags

from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.errors import CannotVerifyError, WheelError
from vllm_wheels.core.formats.wheel_name import WheelName
from vllm_wheels.core.host import sandbox
from vllm_wheels.core.settings import SmokeSettings

UNREPAIRED = "linux_"
"""Platform tags of wheels that promise to run only where they were built (PEP 600, ``linux_x86_64``)."""

LOCAL = "local"
"""Name of the builder that is this host."""

GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_x86_64")
LEGACY = {"manylinux1_x86_64": (2, 5), "manylinux2010_x86_64": (2, 12), "manylinux2014_x86_64": (2, 17)}
"""Older names of such tags (PEP 600, "Legacy manylinux tags")."""


@dataclass(frozen=True, kw_only=True)
class TestLocation:
    """Where a wheel is installed and run.

    Attributes:
        kind: this host, or a container of the builder's image.
        why: the reason of the choice, one line.
        identity: what of the place determines the outcome; plain JSON.
    """

    kind: Literal["host", "container"]
    why: str
    identity: Mapping[str, Any] = field(default_factory=dict)


def choose(
    wheel: str, *, smoke: SmokeSettings, find_builder: Callable[[], Builder], unguarded: bool = False
) -> TestLocation:
    """Chooses the location for a wheel of that file name; calls ``find_builder`` only where the choice depends on it.

    Raises:
        CannotVerifyError: the name is not a wheel's, or no place that the settings allow can run it.
        MachineError: the container is needed and the builder cannot work here.
    """
    platforms = platforms_of(wheel)
    obstacle = _obstacle(platforms, find_builder) or (None if unguarded else sandbox.obstacle())
    if smoke.location != "container" and not obstacle:
        return TestLocation(kind="host", why=f"{', '.join(platforms)} runs on {libc()}", identity={"libc": libc()})
    if smoke.location == "host":
        what = f"{wheel} cannot be tried on this host"
        raise CannotVerifyError(what, why=str(obstacle), remedy="set smoke.location = auto, and build in a container")
    why = obstacle or "smoke.location = container"
    builder = find_builder()
    if builder.name == LOCAL:
        what = f"{wheel} cannot be tried in a container"
        remedy = "set builder.kind = container, and let an engine answer (vllm-wheels set-up)"
        raise CannotVerifyError(what, why=f"{why}; the builder is this host", remedy=remedy)
    return TestLocation(kind="container", why=why, identity={"builder": builder.name, **builder.identity()})


def platforms_of(wheel: str) -> tuple[str, ...]:
    """The platform tags in a wheel's file name."""
    try:
        return WheelName.parse(wheel).platforms
    except WheelError as error:
        raise CannotVerifyError(error.what, why=error.why, remedy=error.remedy) from error


def glibc(tag: str) -> tuple[int, int] | None:
    """The glibc version that a manylinux tag of PEP 600 for x86-64 names; None for every other tag."""
    match = GLIBC.fullmatch(tag)
    return (int(match[1]), int(match[2])) if match else None


def libc() -> str:
    """This host's C library and its version."""
    return " ".join(part for part in platform.libc_ver() if part) or f"{platform.system()} without a known C library"


def _obstacle(platforms: Iterable[str], find_builder: Callable[[], Builder]) -> str | None:
    named = ", ".join(platforms)
    known = {"any", *platform_tags()}
    fitting = [name for name in platforms if name in known]
    if any(not name.startswith(UNREPAIRED) for name in fitting):
        return None
    if not fitting:
        return f"{named} is not a platform of this host ({libc()}, {platform.machine()})"
    if find_builder().name == LOCAL:
        return None
    return f"{named} promises to run only where it was built"
