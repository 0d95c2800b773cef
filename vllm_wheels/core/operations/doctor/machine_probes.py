"""The machine itself: processor, Python, programs, disk, memory, engine."""

from __future__ import annotations

import platform
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.builders import docker_engine as engine
from vllm_wheels.core.builders.image import Image, ready_image, recipe
from vllm_wheels.core.errors import VllmWheelsError
from vllm_wheels.core.host import limits, machine
from vllm_wheels.core.host.machine import program
from vllm_wheels.core.host.system_errors import of_system
from vllm_wheels.core.operations.doctor.findings import Finding, Scene, lacking, ok, replaceable
from vllm_wheels.core.settings import settings_file

OLDEST, NEWEST = (3, 11), (3, 14)
"""Pythons that vllm-wheels itself runs on; a test compares with pyproject.toml."""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that some builds start; ``needed`` where a build with these settings fails without it."""

    name: str
    purpose: str
    needed: Callable[[Scene], bool]


def _takes_debian(scene: Scene) -> bool:
    image = scene.contained and scene.settings.builder.image == "debian"
    return image or scene.settings.onednn.origin == "debian"


def _confines(scene: Scene) -> bool:
    return not (scene.contained or scene.settings.builder.unguarded)


def _clones(scene: Scene) -> bool:
    return scene.settings.source.origin == "git" or scene.settings.onednn.origin == "pinned"


TOOLS = (
    Tool(name="git", purpose="takes oneDNN, and sources by tag", needed=_clones),
    Tool(name="bwrap", purpose="confines what is built and tried on this host", needed=_confines),
    Tool(name="ccache", purpose="makes further builds fast", needed=lambda _: False),
    Tool(name="debootstrap", purpose="makes the Debian builder image", needed=_takes_debian),
    Tool(name="dpkg-source", purpose="unpacks Debian's oneDNN", needed=_takes_debian),
    Tool(name="qemu-x86_64-static", purpose="tries the baseline on an emulated old processor", needed=lambda _: False),
)


def system(scene: Scene) -> Iterator[Finding]:
    """Processor family, C library, and the settings file that applies."""
    name, version = platform.libc_ver()
    there = f"{scene.distribution.identifier} {scene.distribution.version}".strip()
    text = f"{platform.machine()}, {there}, {name or 'no GNU C library'} {version}".rstrip()
    if sys.platform != "linux" or platform.machine() != "x86_64":
        yield lacking("system", text, "use a machine with Linux on x86-64", needed=True)
    elif name != "glibc":
        remedy = "compile in a container: vllm-wheels set-up, and builder.kind = container"
        yield lacking("system", f"{text}: CPU builds of torch need glibc", remedy, needed=not scene.contained)
    else:
        yield ok("system", text)
    file = settings_file()
    yield ok("settings", f"{file}" if file.is_file() else "built-in defaults and environment (no vllm-wheels.toml)")


def python(_: Scene) -> Iterator[Finding]:
    """The Python that runs this."""
    here = sys.version_info[:2]
    text = f"{platform.python_version()} ({sys.executable})"
    newest = ".".join(map(str, NEWEST))
    if not OLDEST <= here <= NEWEST:
        yield lacking("python", text, f"use Python {'.'.join(map(str, OLDEST))} to {newest}", needed=True)
    else:
        yield ok("python", text)


def tools(scene: Scene) -> Iterator[Finding]:
    """Programs and their versions."""
    for tool in TOOLS:
        path = program(tool.name)
        if path is None:
            found = f"not there; it {tool.purpose}"
            yield lacking(tool.name, found, scene.install(tool.name), needed=tool.needed(scene))
            continue
        answer = scene.runner.run(
            [path, "--version"], env={"LC_ALL": "C"}, timeout_seconds=scene.seconds, keep_output=True, quiet=True
        )
        yield ok(tool.name, (answer.output.splitlines() or ["no version"])[0])


def disk(scene: Scene) -> Iterator[Finding]:
    """Room for a build, and folders that can be written."""
    for setting in ("state_folder", "output_folder"):
        folder: Path = getattr(scene.settings, setting)
        yield _written(setting, folder)
    free, wanted = machine.room(scene.settings.state_folder), limits.BUILD_DISK_GIGABYTES
    text = f"{free:.1f} GB free at {scene.settings.state_folder}, a first build needs {wanted:.0f} GB"
    remedy = "vllm-wheels clean, or point state_folder at a larger disk"
    yield ok("disk", text) if free >= wanted else lacking("disk", text, remedy, needed=True)


def _written(setting: str, folder: Path) -> Finding:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    # A file of our own rather than permission bits: read-only and full disks have those as well.
    probe = place / f".vllm-wheels-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"vllm-wheels")
        probe.unlink()
    except OSError as error:
        explained = of_system(error, path=place)
        return lacking(setting, f"{explained.what} ({explained.why})", explained.remedy, needed=True)
    return ok(setting, f"{folder} can be written" if place == folder else f"{folder} can be made")


def memory(scene: Scene) -> Iterator[Finding]:
    """Memory, cores, and the number of compile jobs that follows from them."""
    available, wanted = machine.memory_available(), limits.BUILD_MEMORY_GIGABYTES
    jobs = machine.jobs(scene.settings)
    text = f"{available:.1f} GB available, {machine.cores()} cores: {jobs} compile jobs"
    remedy = "stop other programs, or raise the container's memory limit"
    yield ok("memory", text) if available >= wanted else lacking("memory", text, remedy, needed=True)


def engines(scene: Scene) -> Iterator[Finding]:
    """Container engine and builder image."""
    kind = scene.settings.builder.kind
    if scene.engine is not None:
        remedy = f"{'' if scene.distribution.manager == 'apt' else scene.install('dockerd') + '; '}vllm-wheels set-up"
        yield lacking("engine", scene.engine, remedy, needed=kind == "container")
        return
    with engine.engine() as client:
        told = client.version()
    yield ok("engine", f"{told.get('Version', 'unknown version')} answers" + (" (not used)" if kind == "local" else ""))
    if kind != "local":
        yield from _image(scene)


def _image(scene: Scene) -> Iterator[Finding]:
    wanted = scene.settings.builder.image
    image = usable_image(scene)
    if image:
        yield ok("image", f"{image.name} ({image.reference})")
        return
    if wanted == "debian":
        yield ok("image", "not there yet; the build makes it from your Debian mirror, in about a minute")
        return
    reference = recipe(wanted).base
    try:
        _ask_registry(reference, scene.seconds)
    except (VllmWheelsError, OSError) as error:
        found = f"neither there nor to be pulled: {error}".splitlines()[0]
        remedy = "--allow-substitutes, or builder.image = debian"
        shown = f"{found}: {reference.partition('@')[0]}"
        yield replaceable("image", shown, remedy, substitutes=scene.substitutes)
    else:
        yield ok("image", "not there yet; the build pulls it")


def usable_image(scene: Scene) -> Image | None:
    """The image that a build would take, where the engine has it: the one of the settings, else its substitute."""
    wanted = (scene.settings.builder.image, *(("debian",) if scene.substitutes else ()))
    return next((image for kind in dict.fromkeys(wanted) if (image := ready_image(kind))), None)


def _ask_registry(reference: str, seconds: float) -> None:
    with engine.engine() as client:
        client.api.timeout = seconds
        try:
            client.images.get_registry_data(reference)
        except Exception as error:
            raise OSError(engine.explanation(error)) from error
