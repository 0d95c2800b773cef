"""Where this machine can install and run wheels now: on the host, or in a builder image that exists already."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vllm_wheels.core.builders.container import ContainerBuilder
from vllm_wheels.core.builders.image import Image, kinds, ready_image, recipe
from vllm_wheels.core.builders.local import LocalBuilder
from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.errors import EngineUnreachableError, ImageError
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify import pythons
from vllm_wheels.core.verify.checks import UNJUDGEABLE
from vllm_wheels.core.verify.locations import LEGACY, TestLocation, choose, glibc, platforms_of
from vllm_wheels.core.verify.statement import provenance_of

EVERYWHERE, PLAIN = "any", "linux_x86_64"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The locations that this machine offers; no image is made in order to verify a wheel."""

    settings: Settings
    runner: Runner

    def location(self, wheel: Path) -> TestLocation:
        """The location for a wheel.

        Raises:
            CannotVerifyError: no place that the settings allow can run it.
            ImageError: no builder image that could run it is there.
            MachineError: the container engine is needed and does not answer.
        """
        given = self.settings
        find = partial(self.builder, wheel)
        return choose(wheel.name, smoke=given.smoke, find_builder=find, unguarded=given.builder.unguarded)

    def builder(self, wheel: Path) -> Builder:
        """This host if no container engine is wanted or answers, else the first fitting image that exists.

        Raises:
            EngineUnreachableError: containers are asked for, and no engine answers.
            ImageError: no image that could run it is there.
            CannotVerifyError: the provenance beside the wheel cannot be read.
        """
        given = self.settings.builder
        host = LocalBuilder(runner=self.runner, minimum_compiler=given.minimum_compiler, unguarded=given.unguarded)
        if self.settings.builder.kind == "local":
            return host
        fitting = self._fitting(wheel)
        try:
            image = next((found for kind in fitting if (found := ready_image(kind))), None)
        except EngineUnreachableError:
            if self.settings.builder.kind == "container":
                raise
            return host
        if image:
            return self._container(image)
        raise _no_image(wheel, fitting)

    def obstacle(self, wheel: Path, python: str) -> str | None:
        """Why a wheel cannot be run on a Python here and now, in one line; None where it can."""
        try:
            location = self.location(wheel)
        except UNJUDGEABLE as error:
            return f"{error.what}: {error.why}"
        return pythons.obstacle(python, location, runner=self.runner, find_builder=partial(self.builder, wheel))

    def _container(self, image: Image) -> ContainerBuilder:
        notes = self.settings.state_folder / "images"
        return ContainerBuilder(image=image, notes=notes, echo=self.runner.echo)

    def _fitting(self, wheel: Path) -> tuple[str, ...]:
        """Kinds of image that run the wheel: the one that built it, the configured one, all others."""
        builder = (provenance_of(wheel) or {}).get("builder", {})
        own = [kind for kind in kinds() if kind == builder.get("image")]
        configured = self.settings.builder.image
        platforms = platforms_of(wheel.name)
        promising = [kind for kind in (configured, *kinds()) if any(_runs(kind, platform) for platform in platforms)]
        # This tag promises nothing: where nobody knows what built the wheel, the configured image is the best guess.
        guess = [configured] if not builder and platforms == (PLAIN,) else []
        return tuple(dict.fromkeys([*own, *promising, *guess]))


def _runs(kind: str, platform: str) -> bool:
    needed = glibc(platform) or LEGACY.get(platform)
    offered = tuple(int(part) for part in recipe(kind).entry["glibc"].split("."))
    return platform == EVERYWHERE or (needed is not None and needed <= offered)


def _no_image(wheel: Path, fitting: tuple[str, ...]) -> ImageError:
    what = f"{', '.join(platforms_of(wheel.name))} would have to be tried in a builder's image"
    if fitting:
        remedy = f"vllm-wheels set-up --image {fitting[0]}"
        return ImageError(what, why=f"there is none yet of kind {' or '.join(fitting)}", remedy=remedy)
    known = ", ".join(f"{kind} with glibc {recipe(kind).entry['glibc']}" for kind in kinds())
    remedy = "verify it on a machine of its platform, or with --no-install"
    return ImageError(what, why=f"none of them runs it ({known}, on x86-64)", remedy=remedy)
