"""Commands and downloads as data: a plan shows them, and one place starts or fetches them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

STAGE = "{stage}"
"""Stands in a plan for the folder in which the artifact is made, known only once it is being made."""

PYTHON, PATH, UV, INDEX = "{python}", "{path}", "{uv}", "{index}"
"""Stand in a command for what only its place or the settings know: the Python of the target's version, its own PATH,
the uv that belongs to this program, and the arguments that name the package index, which may hold passwords."""

WHEEL, EXTENSIONS = "{wheel}", "{extensions}"
"""Stand in a command for the wheel and the extensions in it, whose names are known once the wheel is there."""


TUNING = re.compile(r"MAX_JOBS|NINJA_STATUS|UV_HTTP_\w+|S?CCACHE_\w+|DISTCC_\w+|VLLM_DISABLE_SCCACHE")
"""Variables that say how fast or how patiently a command works, and nothing about its result."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file that a step fetches.

    Attributes:
        url: where from.
        size: in bytes; None where the server has not said.
        sha256: published hash; None where nobody publishes one.
    """

    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A command that a step starts; names in braces stand for what is known only once the step is carried out.

    Attributes:
        argv: the command.
        launcher: words before it that look for tools and servers first, and do not change its result.
        environment: on top of what its place gives to every command.
        folder: working folder; folders of a container are below ``/vllm-wheels``.
        place: this host, the builder, the location of a test run, or the container engine, through its API.
        condition: when it is started; None for always.
    """

    argv: tuple[str, ...]
    launcher: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    place: Literal["host", "builder", "location", "engine"] = "host"
    condition: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """All that is started: the launcher and the command."""
        return (*self.launcher, *self.argv)

    def essence(self) -> list[Any]:
        """What of the command decides about its result; not how many jobs it has, or where it keeps a cache."""
        kept = {name: value for name, value in sorted(self.environment.items()) if not TUNING.fullmatch(name)}
        return [list(self.argv), kept, self.folder, self.condition]

    def filled(self, values: Mapping[str, str | Sequence[str]]) -> Invocation:
        """The command as it is started.

        A word that is the name of several values becomes several words.
        """
        single = {name: value for name, value in values.items() if isinstance(value, str)}

        def real(text: str) -> str:
            for name, value in single.items():
                text = text.replace(name, value)
            return text

        several = {name: value for name, value in values.items() if name not in single}
        argv = tuple(word for part in self.argv for word in several.get(part, (real(part),)))
        environment = {name: real(value) for name, value in self.environment.items()}
        folder = None if self.folder is None else real(self.folder)
        return replace(self, argv=argv, environment=environment, folder=folder)
