"""Puts finished wheels where the user wants them, each with its log, provenance and report beside it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_wheels.core.formats.wheelfile import sha256_of, wheel_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.target import Target

SIDECARS = {
    "wheel": ("build.log", "provenance.json", "intoto.json"),
    "verification": ("report.json", "report.md", "report.html"),
}
"""Files of an artifact that stand beside the wheel, by kind of artifact."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A wheel in the output folder; ``seconds`` is what compiling it took."""

    release: str
    for_release: bool
    name: str
    sha256: str
    megabytes: float
    seconds: float
    verdict: str


def deliver(wheel: Artifact, companion: Artifact, folder: Path, *, python: str | None = None) -> Path:
    """Copies a wheel and the files of one artifact about it into a folder; a reader never sees half a file.

    Args:
        wheel: artifact ``wheel``.
        companion: the artifact whose files to put beside it, ``wheel`` itself or its verification.
        folder: output folder.
        python: named in the copies where the files differ by Python, as reports do.

    Returns:
        The wheel's path in the output folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = wheel_in(wheel.folder)
    _copy(source, folder / source.name)
    infix = f".py{python}" if python else ""
    for name in SIDECARS[companion.kind]:
        _copy(companion.folder / name, folder / f"{source.stem}{infix}.{name}")
    return folder / source.name


def delivered(folder: Path, target: Target) -> Iterator[Delivered]:
    """The wheels of a release and variant that lie in an output folder."""
    for path in sorted(folder.glob("*.provenance.json")):
        statement = json.loads(path.read_text("utf-8"))
        wheel = path.with_name(path.name.removesuffix(".provenance.json") + ".whl")
        if (statement["release"], statement["variant"]) != (target.release, target.variant) or not wheel.is_file():
            continue
        yield Delivered(
            release=target.release,
            for_release=bool(statement["for_release"]),
            name=wheel.name,
            sha256=sha256_of(wheel),
            megabytes=wheel.stat().st_size / 1e6,
            seconds=float(statement["compile_seconds"]),
            verdict=_verdict(wheel.with_name(f"{wheel.stem}.py{target.python}.report.json"), sha256_of(wheel)),
        )


def _verdict(report: Path, sha256: str) -> str:
    if not report.is_file():
        return "not tried"
    found = json.loads(report.read_text("utf-8"))
    return str(found["verdict"]) if found["sha256"] == sha256 else "not tried"


def _copy(source: Path, destination: Path) -> None:
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    temporary.replace(destination)
