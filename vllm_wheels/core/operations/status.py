"""What is built, tried and published: the matrix of release, variant and Python, for terminals, programs and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, get_args

from jinja2 import Environment, StrictUndefined
from packaging.version import Version

from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from vllm_wheels.core.engine.failures import Failure

SCHEMA = 1
TEMPLATE = "status.html.tmpl"
VERIFICATION = "verification"

State = Literal["convicted", "failed", "could-not-judge", "missing", "built", "passed"]
"""What became of a wheel, the worst first; ``built`` is not tried yet, or not since it was built again."""

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One wheel of the matrix.

    Attributes:
        working: a run is at it.
        wheel: file name; None where it was never built.
        made_at: when it was built, in seconds since the epoch.
        published: where, as ``version on repository``.
        stale: why it would be made again; empty for one that is up to date.
        why: what kept it from being built, or from passing; empty where nothing did.
        following: what is done about it next, and when; empty where nothing is.
    """

    release: str
    python: str
    variant: str
    state: State = "missing"
    working: bool = False
    wheel: str | None = None
    megabytes: float | None = None
    tokens_per_second: float | None = None
    made_at: float | None = None
    published: tuple[str, ...] = ()
    stale: str = ""
    why: str = ""
    following: str = ""

    @property
    def partition(self) -> str:
        """Key text of the partition."""
        return f"{self.python}|{self.release}"

    def after(self, failure: Failure) -> Cell:
        """The wheel whose last attempt failed."""
        state: State = "could-not-judge" if failure.kind == VERIFICATION else "failed"
        if failure.convicted:
            state = "convicted"
        return replace(self, state=state, why=f"{failure.kind}: {failure.what} ({failure.why})")


@dataclass(frozen=True, kw_only=True)
class Status:
    """The matrix at one moment, ``at`` in seconds since the epoch; ``nightly`` is when the next rebuild begins."""

    at: float
    nightly: float | None
    cells: tuple[Cell, ...]

    @property
    def releases(self) -> list[str]:
        """The releases, the newest first."""
        return sorted({cell.release for cell in self.cells}, key=Version, reverse=True)

    @property
    def counts(self) -> dict[str, int]:
        """How many wheels there are of each state, the worst first."""
        counted = Counter(cell.state for cell in self.cells)
        return {state: counted[state] for state in get_args(State)}

    @property
    def troubles(self) -> list[Cell]:
        """The wheels of which there is something to say, the worst first."""
        order = get_args(State)
        return sorted((cell for cell in self.cells if cell.why or cell.stale), key=lambda cell: order.index(cell.state))

    def pythons(self, release: str) -> list[str]:
        """The Pythons of a release."""
        return sorted({cell.python for cell in self.cells if cell.release == release}, key=Version)

    def rows(self, release: str) -> Iterator[tuple[str, list[Cell]]]:
        """Each variant with its wheels of a release, in the order of its Pythons."""
        found = {(cell.variant, cell.python): cell for cell in self.cells if cell.release == release}
        for name in variants():
            row = [found[name, python] for python in self.pythons(release) if (name, python) in found]
            if row:
                yield name, row

    def is_complete(self, release: str) -> bool:
        """Whether all wheels of a release have passed, and nothing is to be made again."""
        return all(cell.state == "passed" and not cell.stale for cell in self.cells if cell.release == release)

    def age(self, cell: Cell) -> str:
        """How long ago a wheel was built, in words; empty for one that never was."""
        return "" if cell.made_at is None else ago(self.at - cell.made_at)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        complete = [release for release in self.releases if self.is_complete(release)]
        return {"schema_version": SCHEMA, **asdict(self), "counts": self.counts, "complete": complete}

    def as_markdown(self) -> str:
        """A table per release, and below it what there is to say."""
        lines = [f"{moment(self.at)}: {', '.join(f'{count} {state}' for state, count in self.counts.items() if count)}"]
        for release in self.releases:
            pythons = self.pythons(release)
            done = " (complete)" if self.is_complete(release) else ""
            lines += ["", f"**{release}**{done}", "", f"| | {' | '.join(pythons)} |", "|---" * (len(pythons) + 1) + "|"]
            lines += [f"| {name} | {' | '.join(shown(cell) for cell in row)} |" for name, row in self.rows(release)]
        lines += ["", *(f"- {line}" for line in self.lines())]
        return "\n".join(lines) + "\n"

    def lines(self) -> Iterator[str]:
        """What there is to say, a line per wheel."""
        for cell in self.troubles:
            said = "; ".join(text for text in (cell.why, cell.stale and f"stale: {cell.stale}", cell.following) if text)
            yield f"{cell.release} {cell.variant} on {cell.python}: {cell.state}: {' '.join(said.split())}"

    def as_html(self) -> str:
        """One page without scripts, or anything from outside; all that tools said is escaped."""
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
        return template.render(status=self, moment=moment)


def shown(cell: Cell) -> str:
    """A wheel in one cell of a table."""
    marks = [word for word, wanted in (("working", cell.working), ("stale", bool(cell.stale))) if wanted]
    return f"{cell.state} ({', '.join(marks)})" if marks else cell.state


def moment(at: float) -> str:
    """A time of day and date, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def ago(seconds: float) -> str:
    """A duration in its largest unit."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return "just now"


def following(
    cell: Cell, failure: Failure | None, *, kept: bool, nightly: float | None, now: float, reasons: Mapping[str, str]
) -> str:
    """What is done about a wheel next, where it is ``kept`` up to date; ``reasons`` say why it is stale."""
    if cell.working:
        return "a run is at it"
    if failure and failure.due is None:
        return "left alone until something it is made from moves, or somebody asks (build --retry)"
    if failure and failure.due and now < failure.due:
        return f"tried again from {moment(failure.due)} on"
    if not kept or not (reasons or failure or cell.state != "passed"):
        return ""
    return f"rebuilt at {moment(nightly)}" if nightly else "nothing by itself: the nightly rebuild is off"
