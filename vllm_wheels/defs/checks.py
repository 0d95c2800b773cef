"""The checks of a verification as asset checks, one per identifier, so that the UI shows each with its history."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.defs import internals
from vllm_wheels.defs.keys import JUDGED
from vllm_wheels.defs.partitions import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.verify.finding import Finding

SEVERITIES = {"error": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}


def specs(asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of a verification, a verdict per partition; those that forbid a release stop what comes after it."""
    if asset.path[0] != JUDGED:
        return []
    return [
        internals.partitioned_check(
            asset, name=_name(name), description=title, blocking=severity == "error", partitions=PARTITIONS
        )
        for name, title, severity in _listed()
    ]


def listing() -> list[list[str]]:
    """Identifier, title and severity of every check, as the tables of the core have them."""
    from vllm_wheels.core.verify.static_checks import STATIC  # noqa: PLC0415
    from vllm_wheels.core.verify.test_runs import TEST_RUNS  # noqa: PLC0415 - as in ``results``

    static: list[list[str]] = [[each.name, each.title, each.severity] for each in STATIC]
    return static + [[each.name, each.title, each.severity] for each in TEST_RUNS]


@cache
def _listed() -> list[list[str]]:
    """The same out of checks.json, which a test compares: the tables bring every tool along that a check uses."""
    found: list[list[str]] = json.loads(files(__package__).joinpath("checks.json").read_text("utf-8"))
    return found


def results(
    artifact: Artifact, asset: dg.AssetKey, selected: Container[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckResult]:
    """What the report in an artifact of kind ``verification`` says, for those checks that were asked for."""
    # Whoever only looks at the graph does not wait for the tools of the checks.
    from vllm_wheels.core.verify.report import read_report  # noqa: PLC0415

    for finding in read_report(artifact.folder).findings if artifact.kind == JUDGED else ():
        if dg.AssetCheckKey(asset, _name(finding.check)) in selected:
            yield _result(finding, asset)


def _result(finding: Finding, asset: dg.AssetKey) -> dg.AssetCheckResult:
    shown = {"verdict": finding.verdict, "evidence": finding.evidence, "remedy": finding.remedy}
    numbers = {name: dg.MetadataValue.float(float(value)) for name, value in finding.measures.items()}
    texts = {name: dg.MetadataValue.text(text) for name, text in shown.items() if text}
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=_name(finding.check),
        passed=finding.verdict in {"passed", "skipped"},
        severity=SEVERITIES[finding.severity],
        description=finding.line,
        metadata={**texts, **numbers},
    )


def _name(identifier: str) -> str:
    """Dagster's names of checks have no hyphens."""
    return identifier.replace("-", "_")
