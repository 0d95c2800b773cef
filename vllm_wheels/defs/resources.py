"""Resources: what a run may configure, and the way from there to the core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.operations.builds import build_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target


class BuildMode(dg.ConfigurableResource):  # type: ignore[type-arg]  # its parameter is for resources that wrap another object
    """Whether a materialization is carried out or only planned."""

    dry_run: bool = Field(default=False, description="log the plan of every step; execute and record nothing")


class BuildOptions(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What a single run may change of the settings, as the scripts of old allowed."""

    max_jobs: int | None = Field(default=None, description="parallel compile jobs")
    output_folder: str | None = Field(default=None, description="where the finished wheel is put")
    keep_build_folder: bool | None = Field(default=None, description="leave the build folder behind after success")

    retry: bool = Field(
        default=False, description="try again what failed, although nothing that decides about it moved"
    )

    def settings(self) -> Settings:
        """The user's settings with this run's changes."""
        return configuration.changed(
            configuration.load(),
            max_jobs=self.max_jobs,
            output_folder=Path(self.output_folder) if self.output_folder else None,
            keep_build_folder=self.keep_build_folder,
        )

    def builds(
        self,
        *,
        say: Callable[[str], None],
        on_artifact: Callable[[Target, Artifact, bool], None] | None = None,
        automatic: bool = False,
    ) -> BuildGraph:
        """A build graph that echoes what processes print to standard output, where Dagster captures it."""
        # Whoever only looks at the graph does not wait for everything that making an artifact needs.
        from vllm_wheels.core.operations.progress import watcher  # noqa: PLC0415

        follower = watcher()

        def echo(line: str) -> None:
            print(line, flush=True)  # noqa: T201 - standard output of a step is its compute log
            if follower:
                follower.line(line)

        return build_graph(
            self.settings(),
            say=say,
            echo=echo,
            on_artifact=on_artifact,
            watcher=follower,
            retry=self.retry,
            automatic=automatic,
        )
