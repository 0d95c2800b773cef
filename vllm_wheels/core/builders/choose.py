"""Chooses where compilers run: a container where an engine answers, else this host where its compiler will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vllm_wheels.core.builders.container import ContainerBuilder
from vllm_wheels.core.builders.docker_engine import engine, sweep
from vllm_wheels.core.builders.image import ensure_image, planned_image
from vllm_wheels.core.builders.local import LocalBuilder
from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.engine.plan import Step
from vllm_wheels.core.errors import EngineUnreachableError, MachineError
from vllm_wheels.core.host.machine import distribution
from vllm_wheels.core.host.ownership import end_orphans
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.host.sandbox import require
from vllm_wheels.core.settings import Settings


@dataclass(frozen=True)
class ConfiguredBuilders:
    """Where compilers can run, by the settings; what the build graph asks.

    With ``set_up`` an engine that does not answer yet is taken for one that will.
    """

    set_up: bool = False

    def steps(self, settings: Settings, runner: Runner) -> tuple[Step[Any], ...]:
        """What making the image of the container takes; nothing where it is there, or this host compiles."""
        try:
            chosen = kind(settings, runner)
        except MachineError:
            if not self.set_up:
                raise
            chosen = "container"
        return planned_image(settings) if chosen == "container" else ()

    def ready(self, settings: Settings, runner: Runner, say: Callable[[str], None]) -> Builder:
        """The builder; see ``choose``."""
        return choose(settings, runner, say)


def kind(settings: Settings, runner: Runner) -> Literal["container", "local"]:
    """Where compilers would run; nothing is made or started.

    Raises:
        EngineUnreachableError: containers are asked for, and no engine answers.
        MachineError: neither an engine answers nor will this host's compiler do, or nothing confines it here.
    """
    if settings.builder.kind == "local":
        _require_sandbox(settings)
        return "local"
    try:
        with engine() as client:
            # Before anything is made: a killed run's compiler may still be writing into the folders of the next one.
            sweep(client)
    except EngineUnreachableError as unreachable:
        if settings.builder.kind == "container":
            raise
        _require_compiler(settings, runner, unreachable)
        _require_sandbox(settings)
        return "local"
    return "container"


def choose(settings: Settings, runner: Runner, say: Callable[[str], None]) -> Builder:
    """The builder of the settings, ready to work; its image is made if it is not there. Says in one line which.

    Raises what ``kind`` and ``ensure_image`` do.
    """
    # Before anything is made: a killed run's compiler may still be writing into the folders of the next one.
    end_orphans()
    if kind(settings, runner) == "local":
        local = _local(settings, runner)
        compiler = local.identity()["compiler"]
        reason = "builder.kind = local" if settings.builder.kind == "local" else "no container engine answers"
        say(f"compiling on this host with {compiler} ({reason})")
        return local
    image = ensure_image(settings, say)
    say(f"compiling in containers of {image.name} ({image.reference})")
    return ContainerBuilder(image=image, notes=settings.state_folder / "images", echo=runner.echo)


def _local(settings: Settings, runner: Runner) -> LocalBuilder:
    given = settings.builder
    return LocalBuilder(runner=runner, minimum_compiler=given.minimum_compiler, unguarded=given.unguarded)


def _require_sandbox(settings: Settings) -> None:
    if not settings.builder.unguarded:
        require()


def _require_compiler(settings: Settings, runner: Runner, unreachable: EngineUnreachableError) -> None:
    try:
        _local(settings, runner).identity()
    except MachineError as error:
        what = "there is nothing to compile with: no container engine answers, and this host's compiler will not do"
        why = f"{unreachable.why}; {error.what} ({error.why})"
        install = distribution().install_compiler()
        remedy = "vllm-wheels set-up (installs and starts an engine)" + (f"; or {install}" if install else "")
        raise type(error)(what, why=why, remedy=remedy) from error
