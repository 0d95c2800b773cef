"""Decides where a wheel is tried: on this host, or in a container of the image that built it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from packaging.tags import platform_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from vllm_wheels.core.builders import Builder
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.settings import SmokeSettings

UNREPAIRED = "linux_"
"""Platform tags of wheels that promise to run only where they were built (PEP 600, ``linux_x86_64``)."""

LOCAL = "local"
"""Name of the builder that is this host."""


@dataclass(frozen=True, kw_only=True)
class Venue:
    """Where a wheel is tried.

    Attributes:
        kind: this host, or a container of the builder's image.
        why: the reason of the choice, one line.
        identity: what of the place determines the outcome; plain JSON.
    """

    kind: Literal["host", "container"]
    why: str
    identity: Mapping[str, Any] = field(default_factory=dict)


def choose(wheel: str, *, smoke: SmokeSettings, find_builder: Callable[[], Builder]) -> Venue:
    """The venue for a wheel of that file name; the builder is asked for only where the answer depends on it.

    Raises:
        CannotVerifyError: the name is not a wheel's, or no place that the settings allow can run it.
        MachineError: the container is needed and the builder cannot work here.
    """
    platforms = platforms_of(wheel)
    obstacle = _obstacle(platforms, find_builder)
    if smoke.venue != "container" and not obstacle:
        return Venue(kind="host", why=f"{', '.join(platforms)} runs on {libc()}", identity={"libc": libc()})
    if smoke.venue == "host":
        what = f"{wheel} cannot be tried on this host"
        raise CannotVerifyError(what, why=str(obstacle), remedy="set smoke.venue = auto, and build in a container")
    why = obstacle or "smoke.venue = container"
    builder = find_builder()
    if builder.name == LOCAL:
        what = f"{wheel} cannot be tried in a container"
        raise CannotVerifyError(what, why=f"{why}; the builder is this host", remedy="set builder.kind = container")
    return Venue(kind="container", why=why, identity={"builder": builder.name, **builder.identity()})


def platforms_of(wheel: str) -> tuple[str, ...]:
    """The platform tags in a wheel's file name.

    Raises:
        CannotVerifyError: it is not the name of a wheel.
    """
    try:
        tags = parse_wheel_filename(wheel)[3]
    except InvalidWheelFilename as error:
        what = f"{wheel} is not a wheel"
        raise CannotVerifyError(
            what, why=str(error), remedy="give a file NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        ) from error
    return tuple(sorted({tag.platform for tag in tags}))


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
