"""Renders the report as one self-contained HTML page, without scripts, fonts or pictures from outside."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from vllm_wheels.core.verify.finding import OutcomeKind, Verdict
from vllm_wheels.core.verify.report import Report

TEMPLATE = "report.html.tmpl"
ROWS = 24
ROW_HEIGHT = 20
LABEL_WIDTH, BAR_WIDTH = 220, 420
MARKED = ("AVX512", "AVX_", "AMX_")
"""Features above the lowest variant, which are what a verdict is about."""

COLOURS: Mapping[OutcomeKind, Verdict] = {
    "runs": "passed",
    "refused": "could-not-judge",
    "known defect": "could-not-judge",
    "unknown": "could-not-judge",
    "crashed": "convicted",
    "wrong": "convicted",
}
"""The verdict whose colour an outcome of a tiny model has."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of a bar chart; positions in pixels."""

    label: str
    value: str
    y: int
    width: float
    marked: bool = False


def as_html(report: Report) -> str:
    """Renders the page; everything that comes from the wheel is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    composition = report.composition
    features = _bars(composition.features, "{:,.0f}") if composition else []
    parts = {part.name: part.packed for part in composition.parts} if composition else {}
    return template.render(
        report=report,
        colours=COLOURS,
        findings=sorted(report.findings, key=lambda finding: _rank(finding.severity, finding.verdict)),
        features=features,
        sizes=_bars({name: size / 1e6 for name, size in parts.items()}, "{:.2f} MB"),
        row=ROW_HEIGHT,
        left=LABEL_WIDTH,
        full=LABEL_WIDTH + BAR_WIDTH + 120,
    )


def _rank(severity: str, verdict: str) -> tuple[int, int]:
    order = ("convicted", "could-not-judge", "passed", "skipped")
    return order.index(verdict), ("error", "warning").index(severity)


def _bars(values: Mapping[str, float], form: str) -> list[Bar]:
    largest = max(values.values(), default=0.0) or 1.0
    # A square root, since counts differ by factors of thousands and a single instruction matters.
    return [
        Bar(
            label=name,
            value=form.format(value),
            y=index * ROW_HEIGHT,
            width=round((value / largest) ** 0.5 * BAR_WIDTH, 1),
            marked=name.startswith(MARKED),
        )
        for index, (name, value) in enumerate(list(values.items())[:ROWS])
    ]
