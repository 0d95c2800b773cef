"""What the checks found out about one wheel, as JSON for machines and as Markdown for the Dagster UI."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.verify.composition import Composition
from vllm_wheels.core.verify.finding import Finding, Outcome, Verdict
from vllm_wheels.core.verify.locations import TestLocation

SCHEMA = 1
"""Number of the layout of the JSON; raised whenever a reader of the old one would misread the new one."""

REPORT, PAGE, HTML = "report.json", "report.md", "report.html"
"""Names of the files in which a report is kept."""

COUNTED = {
    "convicted": "convicted",
    "could-not-judge": "not judged",
    "warning": "warned of",
    "passed": "passed",
    "skipped": "skipped",
}
"""The words of a summary, the gravest first."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdicts on exactly one wheel file, on one Python.

    Attributes:
        wheel: file name.
        sha256: hash of the file.
        distribution: normalised name (PEP 503).
        version: as the file name has it.
        python: such as ``3.11``; None where only static checks ran.
        location: where the wheel was installed and run, and why there; None where it was not.
        findings: in the order in which they were made.
        started: seconds since the epoch.
        seconds: how long it took.
        variant: instruction-set variant that it was judged as; None where nobody knows.
        claims: Pythons that the wheel claims to run on, lowest first.
        composition: what the wheel consists of; None where it was not unpacked.
        schema: layout of the JSON.
    """

    wheel: str
    sha256: str
    distribution: str
    version: str
    python: str | None
    location: TestLocation | None
    findings: tuple[Finding, ...]
    started: float
    seconds: float
    variant: str | None = None
    claims: tuple[str, ...] = ()
    composition: Composition | None = None
    schema: int = SCHEMA

    @property
    def verdict(self) -> Verdict:
        """The overall verdict, from the findings of severity ``error``: convicted before could-not-judge before passed.

        A report in which nothing passed is no verdict either.
        """
        verdicts = {finding.verdict for finding in self.findings if finding.severity == "error"}
        for decisive in ("convicted", "could-not-judge", "passed"):
            if decisive in verdicts:
                return decisive
        return "could-not-judge"

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each verdict."""
        counted = Counter(finding.verdict for finding in self.findings)
        return {verdict: counted[verdict] for verdict in get_args(Verdict)}

    @property
    def measures(self) -> dict[str, float]:
        """The numbers of all findings by name."""
        return {name: value for finding in self.findings for name, value in finding.measures.items()}

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of the tiny models, of all findings."""
        return tuple(outcome for finding in self.findings for outcome in finding.outcomes)

    def of_verdict(self, verdict: Verdict) -> tuple[Finding, ...]:
        """The findings of severity ``error`` that have the verdict."""
        return tuple(each for each in self.findings if each.severity == "error" and each.verdict == verdict)

    def with_finding(self, finding: Finding, *, now: float) -> Report:
        """The report with one more finding, ``now`` being the time in seconds since the epoch."""
        return replace(self, findings=(*self.findings, finding), seconds=max(0.0, now - self.started))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; the overall verdict and the counts are in it for readers that know nothing else."""
        return {**asdict(self), "verdict": self.verdict, "counts": self.counts}

    @classmethod
    def from_json(cls, data: Any) -> Report:
        """Reads what ``as_json`` gave."""
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if schema != SCHEMA:
            what = f"the report has layout {schema!r}"
            why = f"this version reads layout {SCHEMA}"
            raise CannotVerifyError(what, why=why, remedy="verify the wheel again")
        try:
            return _ADAPTER.validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            what = "the report cannot be read"
            raise CannotVerifyError(what, why=why, remedy="verify the wheel again") from error

    @property
    def summary(self) -> str:
        """Counts, duration and start in one line."""
        counted = Counter(finding.shown for finding in self.findings)
        counts = ", ".join(f"{counted[shown]} {word}" for shown, word in COUNTED.items() if counted[shown])
        began = datetime.fromtimestamp(self.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{counts or 'no findings'}, in {self.seconds:.0f} s from {began}"

    @property
    def scope(self) -> str:
        """On which Python the wheel was verified, or that it was not installed."""
        return f"on Python {self.python}" if self.python else "without installing it"

    @property
    def tried_in(self) -> str:
        """The location and the reason for it, in one line."""
        return f"{self.location.kind} ({self.location.why})" if self.location else "nowhere: it was not installed"

    def as_markdown(self) -> str:
        """The verdict first, then a table of the checks, then the evidence of all that did not pass."""
        lines = [
            f"## {self.verdict}: `{self.wheel}` {self.scope}",
            "",
            self.summary,
            "",
            f"- sha256 `{self.sha256}`",
            f"- {self.distribution} {self.version}, variant {self.variant or 'unknown'}",
            f"- claims Python {', '.join(self.claims) or 'none that is known'}",
            f"- tried in: {self.tried_in}",
            "",
            "| check | verdict | |",
            "|---|---|---|",
        ]
        lines += [f"| {each.check} | {each.shown} | {_cell(each.line)} |" for each in self.findings]
        if self.outcomes:
            lines += ["", "| tiny model | outcome | |", "|---|---|---|"]
            lines += [f"| {each.title} | {each.kind} | {_cell(each.line)} |" for each in self.outcomes]
        for each in self.findings:
            if each.verdict in ("convicted", "could-not-judge"):
                lines += ["", f"### {each.check}: {each.line}", "", f"do: {each.remedy}", "", *_fenced(each.evidence)]
        return "\n".join(lines) + "\n"


_ADAPTER = TypeAdapter(Report)


def read_report(folder: Path) -> Report:
    """The report in an artifact's folder."""
    path = folder / REPORT
    try:
        return Report.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        what = f"there is no report {path}"
        raise CannotVerifyError(what, why=str(error), remedy="verify the wheel again") from error


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what ``as_json`` gives."""
    made = _ADAPTER.json_schema(mode="serialization")
    count = {"type": "integer", "minimum": 0}
    verdicts = list(get_args(Verdict))
    made["properties"] |= {
        "verdict": {"enum": verdicts, "description": "over all findings of severity error"},
        "counts": {"type": "object", "properties": dict.fromkeys(verdicts, count), "additionalProperties": False},
    }
    made["required"] = sorted(made["properties"])
    made["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Report on a wheel", **made}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _fenced(text: str) -> list[str]:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text.rstrip(), fence] if text.strip() else []
