"""The builder images: manylinux, pulled by digest, or a Debian system made here; and what compiling needs on top."""

from __future__ import annotations

import hashlib
import io
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from filelock import FileLock, Timeout

from vllm_wheels.core.builders import debootstrap
from vllm_wheels.core.builders.docker_engine import engine, explanation
from vllm_wheels.core.builders.network import proxies
from vllm_wheels.core.engine.builder import Builder
from vllm_wheels.core.engine.plan import ActionContext, Step, digest
from vllm_wheels.core.errors import EngineUnreachableError, ImageError, StoreBusyError
from vllm_wheels.core.host.commands import STAGE, Download, Invocation
from vllm_wheels.core.host.machine import require_room
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings

REPOSITORY = "vllm-wheels"
NAME_LENGTH = 12
LAST_LINES = 3
TAR = f"{STAGE}/base.tar"


@dataclass(frozen=True, kw_only=True)
class Image:
    """A builder image that the engine has.

    Attributes:
        name: under which the engine has it.
        kind: table of images.toml.
        reference: what it is made of: the pulled image, or the Debian suite.
        digest: of the pulled image; None for an image made here.
        pythons: shell patterns of its interpreters.
    """

    name: str
    id: str
    kind: str
    reference: str
    digest: str | None
    pythons: tuple[str, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an image is made: an entry of images.toml and its dockerfile."""

    kind: str
    entry: Mapping[str, Any]
    dockerfile: str

    @property
    def base(self) -> str:
        """Name of what the dockerfile stands on: the pulled image by digest, or the imported base system."""
        if "reference" in self.entry:
            return str(self.entry["reference"])
        content = {"suite": self.entry["suite"], "packages": self.entry["packages"]}
        return f"{REPOSITORY}/{self.kind}-base:{digest(content)[:NAME_LENGTH]}"

    @property
    def name(self) -> str:
        """Name of the finished image; another one as soon as anything of the recipe changes."""
        content = f"{self.base}\n{self.dockerfile}".encode()
        return f"{REPOSITORY}/{self.kind}:{hashlib.sha256(content).hexdigest()[:NAME_LENGTH]}"


@cache
def recipe(kind: str) -> Recipe:
    """The recipe of a kind of image."""
    data = files(__package__)
    entry = tomllib.loads(data.joinpath("images.toml").read_text("utf-8"))[kind]
    return Recipe(kind=kind, entry=entry, dockerfile=data.joinpath(entry["dockerfile"]).read_text("utf-8"))


def kinds() -> tuple[str, ...]:
    """The kinds of image that there are, the official one first."""
    return tuple(tomllib.loads(files(__package__).joinpath("images.toml").read_text("utf-8")))


def ready_image(kind: str) -> Image | None:
    """The image of a kind where the engine has it; nothing is made.

    Raises:
        EngineUnreachableError: no engine answers.
        ImageError: the engine does not tell.
    """
    chosen = recipe(kind)
    with engine() as client:
        content = _find(client, chosen.name)
    return _image(chosen, content) if content else None


def planned_image(settings: Settings) -> tuple[Step[Any], ...]:
    """What ``ensure_image`` would do now; nothing where the image is there, everything where no engine answers.

    Raises:
        ImageError: the image would have to be pulled, its registry does not answer, and substitutes are refused.
    """
    chosen = recipe(settings.builder.image)
    try:
        with engine() as client:
            steps = _steps(chosen, present=lambda name: _find(client, name) is not None)
            if not any(step.action is _pull for step in steps):
                return steps
            try:
                client.api.inspect_distribution(chosen.base)
            except DockerException as error:
                if settings.substitutes == "refuse":
                    raise _cannot_pull(chosen.base, error) from error
                return _steps(recipe("debian"), present=lambda name: _find(client, name) is not None)
            return steps
    except EngineUnreachableError:
        return _steps(chosen, present=lambda _: False)


def ensure_image(settings: Settings, say: Callable[[str], None]) -> Image:
    """The builder image of the settings, made if the engine does not have it.

    It is made in steps, each said before it is done, and whole or absent in the engine: the run after an interruption
    starts the interrupted part afresh.

    Raises:
        EngineUnreachableError: no engine answers.
        ImageError: the image can be neither pulled nor made; with ``substitutes = "allow"`` the Debian image is taken
            where the official one cannot be pulled, and a notice says so.
        MachineError: debootstrap, root's rights or disk room are missing.
        StoreBusyError: another process is still making it.
    """
    official = recipe(settings.builder.image)
    try:
        return _ensure(official, settings, say)
    except PullError as error:
        if settings.substitutes == "refuse":
            raise
        substitute = recipe("debian")
        notice = f"SUBSTITUTE: builder image {substitute.kind} in place of {official.kind}; {error.what}: {error.why}"
        say(notice)
        return replace(_ensure(substitute, settings, say), notices=(notice,))


class PullError(ImageError):
    """The official image cannot be pulled: the one failure for which there is a substitute."""


def _ensure(chosen: Recipe, settings: Settings, say: Callable[[str], None]) -> Image:
    with engine() as client:
        if _find(client, chosen.name) is None:
            with _lock(settings), _stage(settings) as stage:
                context = ActionContext(
                    stage=stage, settings=settings, runner=Runner(), find_builder=_no_builder, say=say
                )
                for step in _steps(chosen, present=lambda name: _find(client, name) is not None):
                    say(f"{step.title} (about {step.seconds:.0f} s)")
                    step.carry_out(context)
        return _image(chosen, client.images.get(chosen.name).id)


def _no_builder() -> Builder:
    what = "an image cannot be made in a container of itself"
    raise ImageError(what, why="a step asks for the builder", remedy="report this as a defect")


def _image(chosen: Recipe, content: str) -> Image:
    reference = str(chosen.entry.get("reference") or f"Debian {chosen.entry['suite']}")
    return Image(
        name=chosen.name,
        id=content,
        kind=chosen.kind,
        reference=reference,
        digest=reference.partition("@")[2] or None,
        pythons=tuple(chosen.entry["pythons"]),
    )


def _steps(chosen: Recipe, *, present: Callable[[str], bool]) -> tuple[Step[Any], ...]:
    if present(chosen.name):
        return ()
    seconds = chosen.entry["seconds"]
    build = Step(
        title=f"build the {chosen.kind} builder image {chosen.name}",
        action=_build,
        arguments=chosen,
        seconds=seconds["build"],
        invocations=(
            _asked("build", "--network", "host", "--tag", chosen.name, "--build-arg", f"BASE={chosen.base}", "-"),
        ),
    )
    if present(chosen.base):
        return (build,)
    if "reference" in chosen.entry:
        pull = Step(
            title=f"pull the builder image {chosen.base} ({chosen.entry['tag']})",
            action=_pull,
            arguments=chosen.base,
            downloads=(Download(url=chosen.base),),
            seconds=seconds["pull"],
            invocations=(_asked("pull", chosen.base),),
        )
        return (pull, build)
    return (*_base_steps(chosen), build)


def _base_steps(chosen: Recipe) -> tuple[Step[Any], Step[Any]]:
    suite, packages, seconds = chosen.entry["suite"], chosen.entry["packages"], chosen.entry["seconds"]
    bootstrap = Step(
        title=f"make a base system of Debian {suite} with debootstrap, from this host's own mirror",
        action=_bootstrap,
        arguments=Bootstrapping(suite=suite, gigabytes=chosen.entry["gigabytes"]),
        writes=(TAR,),
        seconds=seconds["bootstrap"],
        disk_gigabytes=chosen.entry["gigabytes"],
        invocations=debootstrap.commands(suite, packages=packages, tar=TAR),
    )
    load = Step(
        title=f"import it as image {chosen.base}",
        action=_import,
        arguments=chosen.base,
        reads=(TAR,),
        seconds=seconds["import"],
        invocations=(_asked("import", TAR, chosen.base),),
    )
    return bootstrap, load


def _asked(*arguments: str) -> Invocation:
    """The docker command that asks for the same as the action does through the engine's API."""
    return Invocation(argv=("docker", *arguments), place="engine")


@dataclass(frozen=True, kw_only=True)
class Bootstrapping:
    """Arguments of making a base system: the suite of Debian, and the disk that it takes."""

    suite: str
    gigabytes: float


def _pull(_: ActionContext, reference: str) -> None:
    try:
        with engine() as client:
            _last_lines(client.api.pull(reference, stream=True, decode=True))
    except (DockerException, _EngineSaysNoError) as error:
        raise _cannot_pull(reference, error) from error


def _cannot_pull(reference: str, error: Exception) -> PullError:
    what = f"the image {reference} cannot be pulled"
    remedy = "builder.image = debian, or --allow-substitutes; or see that the registry can be reached"
    return PullError(what, why=explanation(error), remedy=remedy)


def _bootstrap(context: ActionContext, arguments: Bootstrapping) -> None:
    settings, tar = context.settings, context.path(TAR)
    require_room(settings.state_folder, arguments.gigabytes)
    debootstrap.make(context.staged(), suite=arguments.suite, tar=tar, log=_log(settings), runner=context.runner)


def _import(context: ActionContext, name: str) -> None:
    repository, _, tag = name.rpartition(":")
    tar = context.path(TAR)
    try:
        with engine() as client:
            client.api.import_image_from_file(str(tar), repository=repository, tag=tag)
            client.images.get(name)
    except DockerException as error:
        what = f"the engine cannot import the base system as {name}"
        raise ImageError(what, why=explanation(error), remedy="see why; the engine's own log tells more") from error
    tar.unlink()


def _build(context: ActionContext, chosen: Recipe) -> None:
    log = _log(context.settings)
    try:
        with engine() as client:
            output = client.api.build(
                fileobj=io.BytesIO(chosen.dockerfile.encode()),
                tag=chosen.name,
                buildargs={"BASE": chosen.base, **proxies()},
                network_mode="host",
                rm=True,
                forcerm=True,
                decode=True,
            )
            _last_lines(output, log=log)
    except (DockerException, _EngineSaysNoError) as error:
        what = f"the builder image {chosen.name} cannot be built"
        remedy = f"see {log}; correct what it names (most often the network or a proxy), then run the command again"
        raise ImageError(what, why=explanation(error), remedy=remedy) from error


class _EngineSaysNoError(Exception):
    """The engine's stream of progress ended with an error; its text follows the last lines of output."""


def _last_lines(progress: Iterable[Mapping[str, Any]], *, log: Path | None = None) -> None:
    lines: list[str] = []
    failure = ""
    for entry in progress:
        text = str(entry.get("stream") or entry.get("status") or "").strip()
        if text:
            lines.append(text)
        if text and log:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{text}\n")
        failure = str(entry.get("error") or failure).strip()
    # Only after the stream's end, which gives its connection back.
    if failure:
        raise _EngineSaysNoError(" / ".join([*lines[-LAST_LINES:], failure]))


def _find(client: docker.DockerClient, name: str) -> str | None:
    try:
        return str(client.images.get(name).id)
    except ImageNotFound:
        return None
    except APIError as error:
        what = f"the engine does not tell whether it has {name}"
        raise ImageError(what, why=explanation(error), remedy="see why; the engine's own log tells more") from error


def _log(settings: Settings) -> Path:
    return settings.state_folder / "image.log"


@contextmanager
def _stage(settings: Settings) -> Iterator[Path]:
    """A folder for the unfinished; what a killed process left there goes first."""
    parent = settings.state_folder / "staging" / "image"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    locks = settings.state_folder / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / "image.lock", timeout=settings.builder.lock_seconds):
            yield
    except Timeout as error:
        what = "another process is still making the builder image"
        why = f"its lock was not free within {settings.builder.lock_seconds:.0f} s"
        raise StoreBusyError(what, why=why, remedy="wait for it or stop it, then run the command again") from error
