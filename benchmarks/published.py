"""Judges the published CPU wheels without installing them, and writes a page for each of their releases.

    python -m benchmarks.published [--newest 10] [NAME... | NAME==VERSION...]   # judges what has no result yet
    python -m benchmarks.published --pages   # writes docs/published-wheels.md and docs/published/

A wheel is fetched, judged and deleted before the next; what was found is kept in ``results/published``. Given no names
it takes the newest releases of each variant that the configured index has. What has a result is judged again only where
name and version are given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.version import Version

from benchmarks.common import RESULTS
from vllm_wheels.core import settings as configuration
from vllm_wheels.core.formats.versions import version_in
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.index.published import fetch, files_of
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.opening import opened
from vllm_wheels.core.verify.static_checks import report_on, run_static_checks
from vllm_wheels.core.verify.unpacked import Neighbour

KEPT = RESULTS / "published"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, FOLDER = DOCS / "published-wheels.md", DOCS / "published"
BEGIN = "<!-- from here on written by benchmarks/published.py -->\n"
FEATURES = ("AVX2", "FMA", "AVX512F", "AVX512_VNNI", "AVX512_BF16", "AMX_TILE")
TO_TELL = ("convicted", "could-not-judge")
LONGEST_LINE = 200


def main() -> None:
    """Judges, or writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="*", metavar="NAME[==VERSION]")
    parser.add_argument("--newest", type=int, default=10, metavar="N")
    parser.add_argument("--pages", action="store_true")
    asked = parser.parse_args()
    if asked.pages:
        FOLDER.mkdir(exist_ok=True)
        for path, text in pages(results()).items():
            path.write_text(text, "utf-8")
        return
    settings = configuration.load()
    for name, version in wanted(asked.wheels, asked.newest, settings):
        if f"{name}=={version}" in asked.wheels or not place(name, version).exists():
            keep(judged(name, version, settings))


def wanted(given: Sequence[str], newest: int, settings: Settings) -> Iterator[tuple[str, str]]:
    """Names and versions, lower variants first: a higher one is compared with them."""
    for each in given or [variant.distribution for variant in variants().values()]:
        name, _, version = each.partition("==")
        files = [] if version else files_of(settings, name)
        known = {str(file.version) for file in files if file.package_type == "wheel"}
        for one in [version] if version else sorted(known, key=Version, reverse=True)[:newest]:
            yield name, one


def place(name: str, version: str) -> Path:
    """Where the result about a wheel is kept."""
    return KEPT / f"{name}-{version}.json"


def judged(name: str, version: str, settings: Settings) -> dict[str, Any]:
    """What is wrong with a published wheel, and what it holds."""
    began = _processor_seconds()
    with TemporaryDirectory(prefix="published-") as folder:
        path = fetch(name, version, Path(folder), settings)
        with opened(path, settings=settings, runner=Runner(), neighbours=neighbours(name, version)) as unpacked:
            report = report_on(unpacked, run_static_checks(unpacked))
            code, said = unpacked.as_neighbour(), unpacked.claim
    composition = report.composition
    return {
        "wheel": report.wheel,
        "sha256": report.sha256,
        "distribution": report.distribution,
        "version": report.version,
        "variant": report.variant,
        "date": datetime.now(UTC).date().isoformat(),
        "megabytes": round(composition.size / 1e6, 1) if composition else 0,
        "verdict": report.verdict,
        "says": said.text if said else "",
        "code": code.code,
        "processor_seconds": round(_processor_seconds() - began, 1),
        "instructions": {
            file: {feature: found.get(feature, 0) for feature in FEATURES}
            for file, found in (composition.instructions.items() if composition else ())
        },
        "findings": [
            {"check": each.check, "severity": each.severity, "verdict": each.verdict, "line": each.line}
            for each in report.findings
        ],
    }


def _processor_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def neighbours(name: str, version: str) -> list[Neighbour]:
    """Wheels of the same release that were judged before."""
    return [
        Neighbour(name=each["wheel"], distribution=each["distribution"], variant=each["variant"], code=each["code"])
        for each in results()
        if each["distribution"] != name and release(each["version"]) == release(version)
    ]


def keep(result: Mapping[str, Any]) -> None:
    """Keeps a result, and says that it is there."""
    KEPT.mkdir(parents=True, exist_ok=True)
    path = place(result["distribution"], result["version"])
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {result['verdict']} {result['wheel']}\n")
    sys.stdout.flush()


def results() -> list[dict[str, Any]]:
    """All results, newest release first and lower variants first."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(KEPT.glob("*.json"))]
    ranks = {each.distribution: number for number, each in enumerate(variants().values())}
    found.sort(key=lambda each: ranks.get(each["distribution"], 0))
    return sorted(found, key=lambda each: Version(each["version"]), reverse=True)


def release(version: str) -> str:
    """The release of vLLM that a version is of."""
    known = version_in(version)
    return known.base_version if known else version


def pages(found: Sequence[Mapping[str, Any]]) -> dict[Path, str]:
    """The page of each release, and the one that lists them, whose beginning is written by hand."""
    by_release: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for each in found:
        by_release[release(each["version"])].append(each)
    head, _, _ = PAGE.read_text("utf-8").partition(BEGIN)
    return {
        PAGE: head + BEGIN + overview(by_release),
        **{FOLDER / f"{name}.md": page(name, wheels) for name, wheels in by_release.items()},
    }


def overview(by_release: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """All wheels in one table, and how many each check convicts."""
    wheels = [each for found in by_release.values() for each in found]
    if not wheels:
        return ""
    dates = sorted(each["date"] for each in wheels)
    span = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    lines = [
        "\n## Release by release\n",
        f"{len(wheels)} wheels, judged {span} with `--no-install`; each release has a page.\n",
        "| release | wheel | MB | errors | warnings |",
        "|---|---|---|---|---|",
        *(
            f"| [{name}](published/{name}.md) | {each['distribution']} {each['version']} | {each['megabytes']} "
            f"| {len(_of(each, 'error'))} | {len(_of(each, 'warning'))} |"
            for name, found in by_release.items()
            for each in found
        ),
        "\n## By check\n",
        "| check | severity | wheels |",
        "|---|---|---|",
        *_by_check(wheels),
        "\n```{toctree}\n:hidden:\n",
        *(f"published/{name}" for name in by_release),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _by_check(wheels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for each in wheels:
        for finding in each["findings"]:
            if finding["verdict"] == "convicted":
                counted[finding["check"], finding["severity"]] += 1
    for (check, severity), count in sorted(counted.items(), key=lambda each: (-each[1], each[0])):
        yield f"| {check} | {severity} | {count} of {len(wheels)} |"


def page(name: str, wheels: Sequence[Mapping[str, Any]]) -> str:
    """The page of a release."""
    named = [f"{each['distribution']}=={each['version']}" for each in wheels]
    commands = "\n".join(f"vllm-wheels verify {each} --no-install" for each in named)
    lines = [
        f"# Published wheels of vLLM {name}\n",
        "Static verdicts, nothing installed. To repeat them:\n",
        f"```sh\n{commands}\n```",
        *(line for each in wheels for line in _about(each)),
        "## Instructions\n",
        "Counted by decoding the machine code; 0 is none at all.\n",
        f"| wheel, file | {' | '.join(FEATURES)} |",
        f"|---|{'---|' * len(FEATURES)}",
        *(
            f"| {each['distribution']} {file.removeprefix('vllm/').partition('.')[0]} "
            f"| {' | '.join(str(found[feature]) for feature in FEATURES)} |"
            for each in wheels
            for file, found in each["instructions"].items()
        ),
        *_one_code(wheels),
    ]
    return "\n".join(lines) + "\n"


def _about(wheel: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## {wheel['distribution']} {wheel['version']}\n"
    counts = f"{len(_of(wheel, 'error'))} errors, {len(_of(wheel, 'warning'))} warnings"
    yield f"- {wheel['verdict']} on {wheel['date']}: {counts}"
    yield f"- `{wheel['wheel']}`, {wheel['megabytes']} MB"
    yield f"- sha256 `{wheel['sha256']}`"
    if wheel["says"]:
        yield f"- of its instructions it says: {wheel['says']}"
    yield "\n| check | | |"
    yield "|---|---|---|"
    told = [each for each in wheel["findings"] if each["verdict"] in TO_TELL]
    for each in sorted(told, key=lambda each: (each["verdict"], each["severity"])):
        kind = each["severity"] if each["verdict"] == "convicted" else "not judged"
        line = each["line"] if len(each["line"]) <= LONGEST_LINE else f"{each['line'][:LONGEST_LINE]}..."
        yield f"| {each['check']} | {kind} | {_cell(line)} |"
    yield ""


def _cell(text: str) -> str:
    """Text of a wheel, as a cell of a table that no markup of it can leave."""
    plain = text.replace("|", "\\|")
    return "".join(f"\\{sign}" if sign in "<>[]*_`$" else sign for sign in plain)


def _one_code(wheels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    key = _code
    for _, found in groupby(sorted(wheels, key=key), key=key):
        names = [each["distribution"] for each in found]
        if len(names) > 1:
            yield f"\n{' and '.join(names)} hold the same instructions in the same order."


def _code(wheel: Mapping[str, Any]) -> str:
    return str(wheel["code"])


def _of(wheel: Mapping[str, Any], severity: str) -> list[Mapping[str, Any]]:
    """Its convictions of a severity."""
    return [each for each in wheel["findings"] if (each["severity"], each["verdict"]) == (severity, "convicted")]


if __name__ == "__main__":
    main()
