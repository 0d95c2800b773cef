"""Puts finished wheels where the user wants them, each with its log, provenance and report beside it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_wheels.core.formats.wheel_name import sidecar, wheel_in, wheels_in
from vllm_wheels.core.host.files import sha256_of, write_atomically
from vllm_wheels.core.verify.page import as_html
from vllm_wheels.core.verify.report import HTML, PAGE, REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.target import Target
    from vllm_wheels.core.verify.report import Report


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


def deliver(builds: BuildGraph, kind: str, target: Target) -> Path:
    """Puts the wheel, with the files about it, into the output folder; a reader never sees half a file.

    Sidecars are those of ``kind`` (``wheel``, or made from it) and of all that it is made from.

    Returns:
        The wheel's path in the output folder.
    """
    folder = builds.settings.output_folder
    source = wheel_in(builds.ensure("wheel", target).folder)
    folder.mkdir(parents=True, exist_ok=True)
    _copy(source, folder / source.name)
    for rule in (builds.rules[each] for each in (*builds.closure(kind), kind)):
        # One wheel serves all Pythons; what is said of it on one names that one.
        infix = f"py{target.python}." if rule.stage == "verify" else ""
        for name in rule.sidecars:
            _copy(builds.ensure(rule.kind, target).folder / name, sidecar(folder / source.name, f"{infix}{name}"))
    return folder / source.name


def deliver_open(builds: BuildGraph, target: Target, report: Report) -> None:
    """Puts a wheel into the output folder with a report that came to no verdict, which the store does not keep."""
    wheel = deliver(builds, "wheel", target)
    texts = {REPORT: json.dumps(report.as_json(), indent=1), PAGE: report.as_markdown(), HTML: as_html(report)}
    for name, text in texts.items():
        write_atomically(sidecar(wheel, f"py{target.python}.{name}"), text)


def delivered(folder: Path, target: Target) -> Iterator[Delivered]:
    """The wheels of a release and variant that lie in an output folder."""
    for wheel in wheels_in(folder):
        path = sidecar(wheel, "provenance.json")
        statement = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if (statement.get("release"), statement.get("variant")) != (target.release, target.variant):
            continue
        yield Delivered(
            release=target.release,
            for_release=bool(statement["for_release"]),
            name=wheel.name,
            sha256=sha256_of(wheel),
            megabytes=wheel.stat().st_size / 1e6,
            seconds=float(statement["compile_seconds"]),
            verdict=_verdict(sidecar(wheel, f"py{target.python}.report.json"), sha256_of(wheel)),
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
