"""What the web UI shows of an artifact: its data version and its metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dagster as dg

from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.formats.wheelfile import WheelFile
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.verify.report import read_report
from vllm_wheels.defs import checks
from vllm_wheels.defs.internals import KEY
from vllm_wheels.defs.keys import key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vllm_wheels.core.engine.store import Artifact

LOG_LINES = 200
"""Of a build log that the UI shows."""

Metadata = dict[str, "dg.MetadataValue[Any]"]


def metadata(artifact: Artifact) -> Metadata:
    """The artifact as the UI shows it: common entries first, then those of its kind."""
    common: Metadata = {
        "folder": dg.MetadataValue.path(str(artifact.folder)),
        KEY: dg.MetadataValue.text(artifact.key),
        "seconds": dg.MetadataValue.float(float(artifact.seconds)),
    }
    return {**common, **DETAILS.get(artifact.kind, _facts)(artifact)}


def _facts(artifact: Artifact) -> Metadata:
    return {name: dg.MetadataValue.json(value) for name, value in artifact.facts.items()}


def _source(artifact: Artifact) -> Metadata:
    facts = artifact.facts
    return {
        "origin": dg.MetadataValue.json(artifact.details["origin"]),
        "demands": dg.MetadataValue.json(artifact.details["upstream"]),
        "tree_sha256": dg.MetadataValue.text(facts["tree_sha256"]),
    }


def _torch_env(artifact: Artifact) -> Metadata:
    facts = artifact.facts
    rows = [dg.TableRecord({"package": name, "version": version}) for name, version in artifact.details["packages"]]
    return {
        "torch": dg.MetadataValue.text(facts["torch"]),
        "packages": dg.MetadataValue.table(rows),
        "left_out": dg.MetadataValue.json(facts["left_out"]),
        "lock": dg.MetadataValue.path(str(artifact.folder / "lock.txt")),
    }


def _patched(artifact: Artifact) -> Metadata:
    facts = artifact.facts
    diff = (artifact.folder / "changes.diff").read_text("utf-8")
    return {
        "distribution": dg.MetadataValue.text(facts["distribution"]),
        "same_code_as": dg.MetadataValue.text(facts["same_code_as"] or "no other variant"),
        "version": dg.MetadataValue.text(facts["version"]),
        "requires": dg.MetadataValue.json(facts["requires_dist"]),
        "dropped": dg.MetadataValue.json(facts["dropped_requirements"]),
        "diff": dg.MetadataValue.md(f"```diff\n{diff}\n```"),
        "METADATA": dg.MetadataValue.md(f"```\n{(artifact.folder / 'METADATA').read_text('utf-8')}\n```"),
    }


def _wheel(artifact: Artifact) -> Metadata:
    path = wheel_in(artifact.folder)
    statement = json.loads((artifact.folder / "provenance.json").read_text("utf-8"))
    ccache = statement["ccache"]
    asked = ccache["hits"] + ccache["misses"]
    return {
        "wheel": dg.MetadataValue.text(path.name),
        "sha256": dg.MetadataValue.text(sha256_of(path)),
        "megabytes": dg.MetadataValue.float(round(path.stat().st_size / 1e6, 2)),
        "members": dg.MetadataValue.int(len(WheelFile.read(path).members)),
        "compile_seconds": dg.MetadataValue.float(float(statement["compile_seconds"])),
        "ccache_hits": dg.MetadataValue.int(ccache["hits"]),
        "ccache_misses": dg.MetadataValue.int(ccache["misses"]),
        "ccache_hit_rate": dg.MetadataValue.float(round(ccache["hits"] / asked, 3) if asked else 0.0),
        "for_release": dg.MetadataValue.bool(statement["for_release"]),
        "deviations": dg.MetadataValue.json(statement["deviations"]),
        # A browser opens no path: the report is one click away, the log's end is here.
        "report": dg.MetadataValue.asset(key("verification", statement["variant"])),
        "build_log": dg.MetadataValue.md(_end(artifact.folder / "build.log")),
        "build_log_file": dg.MetadataValue.path(str(artifact.folder / "build.log")),
        "provenance": dg.MetadataValue.json(statement),
    }


def _verification(artifact: Artifact) -> Metadata:
    facts = artifact.facts
    return {
        "verdict": dg.MetadataValue.text(facts["verdict"]),
        "location": dg.MetadataValue.text(str(artifact.details["location"])),
        "checks": dg.MetadataValue.json(facts["counts"]),
        "skipped": dg.MetadataValue.json(dict(checks.skipped(read_report(artifact.folder)))),
        **{name: dg.MetadataValue.float(float(value)) for name, value in artifact.details["measures"].items()},
        "report": dg.MetadataValue.md((artifact.folder / "report.md").read_text("utf-8")),
        "report_file": dg.MetadataValue.path(str(artifact.folder / "report.html")),
    }


def _end(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").splitlines()
    left_out = [f"({len(lines) - LOG_LINES} lines before)"] if len(lines) > LOG_LINES else []
    # More backquotes than a log has in a row.
    return "\n".join(["`````", *left_out, *lines[-LOG_LINES:], "`````"])


DETAILS: Mapping[str, Callable[[Artifact], Metadata]] = {
    "source": _source,
    "torch_env": _torch_env,
    "metadata": _patched,
    "wheel": _wheel,
    "verification": _verification,
}


def plan(text: str, path: Path) -> Metadata:
    """What a dry run shows: its plan as Markdown, and where the JSON of it is."""
    return {"plan": dg.MetadataValue.md(text), "json": dg.MetadataValue.path(str(path))}
