"""Publishes a release of small wheels to an index on loopback."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.http import Clock
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.host.secrets import sealed
from vllm_wheels.core.publish.receipt import Receipt
from vllm_wheels.core.publish.release import Publisher, Release, prepare, publishing_context, repositories
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants
from vllm_wheels_tests.fixtures.publishing import RELEASE, TOKEN


@dataclass
class Desk:
    """Where a test publishes from.

    Attributes:
        folder: holds output and state folder.
        environ: tokens.
        slept: every pause, in seconds; none of them is real.
        said: every line.
        variants: that a release consists of; few, for every upload starts a process.
        changes: to section ``publish`` of the settings.
    """

    folder: Path
    repositories: dict[str, dict[str, str]]
    environ: dict[str, str] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""
    variants: tuple[str, ...] = ("baseline",)

    def __post_init__(self) -> None:
        self.environ = self.environ or tokens()

    @property
    def output(self) -> Path:
        """Output folder."""
        return self.folder / "wheels"

    @property
    def state(self) -> Path:
        """State folder."""
        return self.folder / "state"

    def wheel(self, project: str) -> Path:
        """The wheel of a project, as its file name begins."""
        return next(self.output.glob(f"{project}-*.whl"))

    def hashes(self) -> dict[str, str]:
        """What is to be on the index in the end."""
        paths = [self.wheel(variants()[name].distribution.replace("-", "_")) for name in self.variants]
        return {path.name: sha256_of(path) for path in paths}

    def settings(self) -> Settings:
        """Those of the test."""
        few = {"repositories": self.repositories, "repository": "real", "required_variants": self.variants}
        publish = {**few, **self.changes}
        return configuration.load(
            output_folder=self.output,
            state_folder=self.state,
            index={"timeout_seconds": 1.0},
            publish=publish,
            wheel={"version_suffix": self.suffix},
        )

    def prepare(self) -> Release:
        """The plans."""
        settings = self.settings()
        return prepare(settings, RELEASE, to=repositories(settings))

    def publish(self, chosen: Iterable[str] = ()) -> tuple[Receipt, ...]:
        """Uploads what is missing; pauses pass at once."""
        now = [0.0]

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            now[0] += seconds

        clock = Clock(monotonic=lambda: now[0], sleep=sleep, chance=lambda: 0.0)
        context = publishing_context(self.settings(), runner=Runner(), find_builder=no_builder, say=self.said.append)
        secrets = sealed(self.environ)
        publisher = Publisher(context=context, secrets=secrets, clock=clock)
        try:
            return publisher.publish(self.prepare(), chosen=tuple(chosen) or self.variants)
        finally:
            secrets.forget()


def tokens(token: str = TOKEN) -> dict[str, str]:
    """A token per project, as the settings name the variables by default."""
    names = [variant.distribution.replace("-", "_").upper() for variant in variants().values()]
    return {f"PUBLISH_TOKEN_{name}": token for name in names}


def no_builder() -> Any:
    message = "publishing small wheels needs no builder"
    raise AssertionError(message)
