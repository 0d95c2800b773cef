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
    from collections.abc import Iterator

    from vllm_wheels.core.verify.finding import Finding
    from vllm_wheels.core.verify.report import Report


def specs(asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of a verification, a verdict per partition; what they mean for a run ``making.judged`` decides."""
    if asset.path[0] != JUDGED:
        return []
    return [
        internals.partitioned_check(asset, name=_name(name), description=title, partitions=PARTITIONS)
        for name, title, _ in _listed()
    ]


def listing() -> list[list[str]]:
    """Identifier, title and severity of every check, as the tables of the core have them."""
    # Whoever only looks at the graph does not wait for the tools of the checks.
    from vllm_wheels.core.verify.static_checks import STATIC  # noqa: PLC0415
    from vllm_wheels.core.verify.test_runs import TEST_RUNS  # noqa: PLC0415

    static: list[list[str]] = [[each.name, each.title, each.severity] for each in STATIC]
    return static + [[each.name, each.title, each.severity] for each in TEST_RUNS]


@cache
def _listed() -> list[list[str]]:
    """The same out of checks.json, which a test compares: the tables bring every tool along that a check uses."""
    found: list[list[str]] = json.loads(files(__package__).joinpath("checks.json").read_text("utf-8"))
    return found


def evaluations(report: Report, asset: dg.AssetKey, partition: str) -> Iterator[dg.AssetCheckEvaluation]:
    """What a report says, a verdict per check; of a skipped check nothing, since Dagster's checks pass or fail only.

    Only a conviction that forbids a release is of severity ERROR.
    """
    for finding in report.findings:
        if finding.verdict != "skipped":
            yield _evaluation(finding, asset, partition)


def is_open(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Whether a check could not judge."""
    verdict = evaluation.metadata.get("verdict")
    return verdict is not None and verdict.value == "could-not-judge"


def skipped(report: Report) -> Iterator[tuple[str, str]]:
    """The checks that did not apply, each with the reason."""
    return ((finding.check, finding.line) for finding in report.findings if finding.verdict == "skipped")


def _evaluation(finding: Finding, asset: dg.AssetKey, partition: str) -> dg.AssetCheckEvaluation:
    shown = {"verdict": finding.verdict, "evidence": finding.evidence, "remedy": finding.remedy}
    numbers = {name: dg.MetadataValue.float(float(value)) for name, value in finding.measures.items()}
    texts = {name: dg.MetadataValue.text(text) for name, text in shown.items() if text}
    forbids = (finding.severity, finding.verdict) == ("error", "convicted")
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=_name(finding.check),
        passed=finding.verdict == "passed",
        severity=dg.AssetCheckSeverity.ERROR if forbids else dg.AssetCheckSeverity.WARN,
        description=finding.line if finding.verdict == "passed" else f"{finding.shown}: {finding.line}",
        metadata={**texts, **numbers},
        partition=partition,
    )


def _name(identifier: str) -> str:
    """Dagster's names of checks have no hyphens."""
    return identifier.replace("-", "_")
