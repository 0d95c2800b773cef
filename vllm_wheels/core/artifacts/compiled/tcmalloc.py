"""Takes tcmalloc out of the builder image for the wheel: upstream's code preloads it from ``vllm/libs``.

Upstream bundles what ``ldconfig`` finds on the machine that builds. Here it is of a package that the image's recipe
names, with its licence and version. The local builder has no such package, and its wheels come without.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from vllm_wheels.core.engine.builder import PLACE, Command, Mount
from vllm_wheels.core.engine.plan import ActionContext, Made, Step
from vllm_wheels.core.errors import BuildError
from vllm_wheels.core.host.commands import STAGE, Invocation
from vllm_wheels.core.host.files import sha256_of

FOLDER = "tcmalloc"
LIBRARY, LICENCE, VERSION = "libtcmalloc_minimal.so.4", "LICENSE.gperftools", "version.txt"
LIMIT_SECONDS = 60.0

WITHOUT_CODE = "vLLM {release} has no code that preloads tcmalloc: the wheel comes without"
WITHOUT_PACKAGE = "the wheel comes without tcmalloc, which it would preload: only builder images have a package of it"


@dataclass(frozen=True, kw_only=True)
class Package:
    """What of an image goes into the wheel; the fields are explained at the top of tcmalloc.toml."""

    package: str
    library: str
    licence: str
    version: str
    purl: tuple[str, str]


def taking(image: str) -> Step[Package]:
    """The step that takes it out of a kind of image."""
    entry: Mapping[str, Any] = tomllib.loads(files(__package__).joinpath("tcmalloc.toml").read_text("utf-8"))[image]
    package = Package(**{**entry, "purl": tuple(entry["purl"])})
    script = f"cp -L {package.library} {LIBRARY}; cp -L {package.licence} {LICENCE}; {package.version} > {VERSION}"
    return Step(
        title=f"take tcmalloc out of the builder image's package {package.package}",
        action=take,
        arguments=package,
        writes=tuple(f"{STAGE}/{FOLDER}/{name}" for name in (LIBRARY, LICENCE, VERSION)),
        seconds=1,
        invocations=(Invocation(argv=("sh", "-ec", script), folder=f"{PLACE}/{FOLDER}", place="builder"),),
    )


def take(context: ActionContext, package: Package) -> Made:
    """Copies the files into the stage; returns fact ``tcmalloc``, BuildError where the image lacks one."""
    folder = context.stage / FOLDER
    folder.mkdir()
    (invocation,) = context.invocations
    mounts = [Mount(source=folder, place=str(invocation.folder), writable=True)]
    finished = context.builder.run(Command.of(invocation, mounts=mounts), timeout_seconds=LIMIT_SECONDS)
    if finished.status:
        what = f"tcmalloc cannot be taken out of the builder image's package {package.package}"
        why = finished.tail[-1] if finished.tail else f"copying it ended with status {finished.status}"
        raise BuildError(what, why=why, remedy="remove the builder image, so that it is made anew")
    return Made(facts={FOLDER: _stated(folder, package)})


def _stated(folder: Path, package: Package) -> dict[str, Any]:
    version = (folder / VERSION).read_text("utf-8").strip()
    kind, namespace = package.purl
    purl = {"type": kind, "namespace": namespace, "name": package.package, "version": version}
    return {"purl": purl, "sha256": sha256_of(folder / LIBRARY)}
