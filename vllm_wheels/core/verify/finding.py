"""What one check says about one wheel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vllm_wheels.core.texts import shown, shown_line

Verdict = Literal["passed", "convicted", "could-not-judge", "skipped"]
Severity = Literal["error", "warning"]
OutcomeKind = Literal["runs", "refused", "known defect", "unknown", "crashed", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one tiny model.

    Attributes:
        model: its name in models.toml.
        title: what it is, for people.
        kind: a ``known defect`` is one of upstream, in every build; an ``unknown`` model is none of the release's;
            ``crashed`` and ``wrong`` convict.
        line: what was seen, or the reason, one line.
    """

    model: str
    title: str
    kind: OutcomeKind
    line: str

    @property
    def shown(self) -> str:
        """The kind as people read it behind the model's name."""
        told = {
            "wrong": "answers wrongly",
            "known defect": "has a known defect of upstream",
            "unknown": "is no model of this release",
        }
        return told.get(self.kind, self.kind)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: identifier of the check.
        severity: an ``error`` forbids a release, a ``warning`` does not.
        verdict: ``skipped`` always says why in ``line``.
        line: the verdict in one line.
        evidence: what was seen, several lines.
        remedy: what to type or change, one line; empty where nothing is wrong.
        measures: numbers by name, such as ``tokens_per_second``.
        outcomes: what became of each tiny model that was tried.
    """

    check: str
    severity: Severity
    verdict: Verdict
    line: str
    evidence: str = ""
    remedy: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Finding":
        """Reads what ``dataclasses.asdict`` gave."""
        return cls(**{**data, "outcomes": tuple(Outcome(**each) for each in data["outcomes"])})

    def __post_init__(self) -> None:
        """Takes out of its texts, which quote the wheel, what a terminal or a page acts on."""
        for name, clean in (("line", shown_line), ("evidence", shown), ("remedy", shown_line)):
            object.__setattr__(self, name, clean(getattr(self, name)))

    @property
    def shown(self) -> str:
        """The verdict as people read it: a conviction that forbids no release is a ``warning``."""
        return "warning" if (self.severity, self.verdict) == ("warning", "convicted") else self.verdict
