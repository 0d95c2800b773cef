"""Finds the wheels of a release in the output folder, and lets through only a complete set that has passed."""

import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from packaging.version import Version

from vllm_wheels.core.errors import (
    AlteredWheelError,
    CannotVerifyError,
    IncompleteReleaseError,
    PublicationError,
    VllmWheelsError,
)
from vllm_wheels.core.formats.wheel_name import WheelName, name_stem, sidecar, wheels_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.names import distributions, version_of
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import flagship, variant, variants
from vllm_wheels.core.verify.gate import TestCoverage, coverage
from vllm_wheels.core.verify.places import Places
from vllm_wheels.core.verify.report import Report

PROVENANCE, REPORT = "provenance.json", "report.json"
LEFT_OUT = "publish.required_pythons leaves it out"
INTERPRETER = re.compile(r"(?:cp|py)3(\d*)")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A wheel that may be published."""

    variant: str
    project: str
    version: str  # of the distribution
    path: Path
    sha256: str  # of the file; also what its report and its provenance speak of
    size: int
    metadata: Message
    pythons: tuple[str, ...]  # on which it has passed
    reports: Mapping[str, str]  # SHA-256 of the report by Python
    # Those that it claims and has not been tried on, each with the reason
    without: Mapping[str, str] = field(default_factory=dict)

    @property
    def tried(self) -> str:
        """On which Pythons it has passed, and on which it could not be tried and why, in one line."""
        return str(TestCoverage(pythons=self.pythons, without=tuple(self.without.items())))


def required_variants(settings: Settings, chosen: Iterable[str] = ()) -> tuple[str, ...]:
    """Variants that a release consists of, in the order of upload: the flagship last."""
    names = tuple(chosen) or settings.publish.required_variants or tuple(variants())
    known = dict.fromkeys(variant(name).name for name in names)
    return tuple(sorted(known, key=lambda name: name == flagship()))


def candidates(settings: Settings, release: str, *, variants: Iterable[str]) -> tuple[Candidate, ...]:
    """The wheels of a release, each proven by hash to have passed on every Python that it claims.

    A Python that this installation cannot provide is excused, and named in ``Candidate.without``. Where
    ``publish.required_pythons`` is set, these and no others must have passed, without excuse. The wheels come in the
    order of ``variants``.

    Raises:
        IncompleteReleaseError: a variant is missing, or has no report on a Python.
        AlteredWheelError: a wheel is not the one that its provenance or a report speaks of.
        VerificationError: a report convicts its wheel.
        CannotVerifyError: a report came to no verdict.
        PublicationError: a wheel deviates from its release's pins.
    """
    return tuple(found for name in variants for found in _of_variant(settings, release, name))


def obstacle_to_release(settings: Settings, wheel: Path) -> str | None:
    """Why a wheel may not be offered as released, in one line; None where it has passed as publishing demands it."""
    path = sidecar(wheel, PROVENANCE)
    if not path.is_file():
        return f"{wheel.name} has no provenance beside it"
    try:
        statement = _read(path)
        _candidate(settings, statement["variant"], wheel, statement, required=settings.publish.required_pythons)
    except VllmWheelsError as error:
        return f"{error.what}: {error.why}"
    except KeyError as error:
        return f"the provenance of {wheel.name} does not tell {error}"
    return None


def _of_variant(settings: Settings, release: str, name: str) -> list[Candidate]:
    statements = _wheels(settings, release, name)
    required = settings.publish.required_pythons
    served: dict[Path, list[str]] = {}
    for python in required or _supported(statements):
        served.setdefault(_installed_on(python, statements, name), []).append(python)
    return [
        _candidate(settings, name, path, statements[path], required=found if required else ())
        for path, found in served.items()
    ]


def _wheels(settings: Settings, release: str, name: str) -> dict[Path, Mapping[str, Any]]:
    version = Version(version_of(release, settings))
    stem = f"{name_stem(distributions(settings)[name], str(version))}-"
    folder = settings.output_folder
    found = [path for path in wheels_in(folder, stem) if sidecar(path, PROVENANCE).is_file()]
    if not found:
        what = f"variant {name} of {release} is missing"
        why = f"{folder} holds no {stem}*.whl with its provenance"
        remedy = f"vllm-wheels build --variant {name} --release {release}"
        raise IncompleteReleaseError(what, why=why, remedy=remedy)
    return {path: _read(sidecar(path, PROVENANCE)) for path in found}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        what = f"{path.name} cannot be read"
        raise CannotVerifyError(what, why=str(error), remedy="build and verify the wheel again") from error


def _supported(statements: Mapping[Path, Mapping[str, Any]]) -> tuple[str, ...]:
    if pythons := tuple(next(iter(statements.values())).get("pythons", ())):
        return pythons
    what = f"the Pythons that {next(iter(statements)).name} must have passed on are not known"
    why = "its provenance names none, and publish.required_pythons is not set"
    raise IncompleteReleaseError(what, why=why, remedy="set publish.required_pythons, or build the wheel again")


def _installed_on(python: str, wheels: Iterable[Path], name: str) -> Path:
    """The wheel that an installer takes on a Python: the one for the highest stable ABI that it has (PEP 425)."""
    floors = {path: floor for path in wheels if (floor := _lowest_python(path)) <= Version(python)}
    best = [path for path, floor in floors.items() if floor == max(floors.values())]
    if len(best) == 1:
        return best[0]
    what = f"variant {name} is {'ambiguous' if best else 'missing'} on Python {python}"
    why = f"of the output folder these fit: {', '.join(path.name for path in best) or 'none'}"
    remedy = "remove all but one" if best else f"vllm-wheels build --variant {name} --python-version {python}"
    raise IncompleteReleaseError(what, why=why, remedy=remedy)


def _lowest_python(wheel: Path) -> Version:
    interpreters = {tag.interpreter for tag in WheelName.parse(wheel.name).tags}
    digits = min(match[1] for each in interpreters if (match := INTERPRETER.fullmatch(each)))
    return Version(f"3.{digits}" if digits else "3")


def _candidate(
    settings: Settings, name: str, path: Path, statement: Mapping[str, Any], *, required: Sequence[str]
) -> Candidate:
    sha256 = sha256_of(path)
    if sha256 != statement["sha256"]:
        what = f"{path.name} was altered after it was built"
        why = f"its provenance is of sha256 {statement['sha256'][:12]}, the file has {sha256[:12]}"
        raise AlteredWheelError(what, why=why, remedy="build it again: it comes from the store within seconds")
    if not statement["for_release"]:
        what = f"{path.name} is not for release"
        why = "; ".join(statement["deviations"])
        raise PublicationError(what, why=why, remedy="build it from the official artifacts, with substitutes = refuse")
    file = WheelFile.read(path)
    reports = _reports(path, sha256, required=required)
    places = Places(settings=settings, runner=Runner())
    cleared = coverage(
        path,
        [report for report, _ in reports.values()],
        obstacle=lambda python: LEFT_OUT if required else places.obstacle(path, python),
        required=required,
    )
    return Candidate(
        variant=name,
        project=file.name,
        version=str(Version(file.version)),
        path=path,
        sha256=sha256,
        size=path.stat().st_size,
        metadata=file.metadata,
        pythons=cleared.pythons,
        without=dict(cleared.without),
        reports={python: reports[python][1] for python in cleared.pythons},
    )


def _reports(wheel: Path, sha256: str, *, required: Sequence[str]) -> dict[str, tuple[Report, str]]:
    """The reports beside a wheel, each with its own hash, by Python."""
    found = {}
    begin = sidecar(wheel, "py").name
    for path in sorted(wheel.parent.glob(f"{glob.escape(begin)}*.{REPORT}")):
        python = path.name.removeprefix(begin).removesuffix(f".{REPORT}")
        report = Report.from_json(_read(path))
        if (report.wheel, report.sha256, report.python) != (wheel.name, sha256, python):
            if required and python not in required:
                continue
            what = f"{path.name} does not speak of this wheel"
            why = f"it is of {report.wheel} on Python {report.python}, sha256 {report.sha256[:12]}"
            raise AlteredWheelError(what, why=why, remedy=f"verify {wheel.name} again on Python {python}")
        found[python] = (report, sha256_of(path))
    return found
