"""Shows plans before they are carried out: as a document of plain JSON with a published schema, and as Markdown."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from vllm_wheels.core.engine.plan import Plan, Step
from vllm_wheels.core.engine.reasons import last_made, reasons
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.host.commands import Download, Invocation
from vllm_wheels.core.target import Target

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import BuildGraph

PAST_RUNS = 5
"""How many past runs an estimate looks back."""

PLACES = {
    "builder": "in the builder",
    "location": "where the wheel is tried",
    "engine": "asked of the container engine by its API",
}
"""Where a command runs, if not on this host."""

OPEN = re.compile(r"\{[\w ]+\}|<[^<>]*not made yet>")

CORE = "vllm_wheels.core."

MINUTE = 60
MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long making an artifact will take.

    Attributes:
        seconds: median of past runs; without any, the sum of the steps' guesses.
        shortest: of the past runs.
        longest: of the past runs.
        past_runs: how many artifacts of the kind the estimate rests on; 0 for a guess.
        misses: part of the files that the compiler's cache did not have in these runs; None where it was not asked.
    """

    seconds: float
    shortest: float | None = None
    longest: float | None = None
    past_runs: int = 0
    misses: float | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step as it is shown; the fields are those of a Step.

    Attributes:
        title: what it does.
        action: name of the function that carries it out.
        arguments: what that is called with.
        reads: files and folders it needs.
        writes: files and folders that exist afterwards.
        downloads: files it fetches.
        seconds: estimate; None where nobody knows.
        gigabytes: memory needed at the same time.
        disk_gigabytes: disk needed at the same time.
        invocations: every command that it starts, in order.
    """

    title: str
    action: str
    arguments: Any
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    downloads: tuple[Download, ...]
    seconds: float | None
    gigabytes: float | None
    disk_gigabytes: float | None
    invocations: tuple[Invocation, ...]

    @classmethod
    def of(cls, step: Step[Any]) -> PlannedStep:
        """The step with its action's name, and its arguments as plain JSON."""
        shown = {each.name: getattr(step, each.name) for each in fields(step)}
        action = f"{step.action.__module__.removeprefix(CORE)}.{step.action.__name__}"
        return cls(**{**shown, "action": action, "arguments": to_jsonable_python(step.arguments)})


@dataclass(frozen=True, kw_only=True)
class PlannedArtifact:
    """What would become of one artifact.

    Attributes:
        artifact: its kind.
        state: whether the store has it.
        reasons: why it must be made, one clause for each input that changed; none for an artifact that the store has.
        key: hash of the inputs; None while some are unknown.
        unknown: what only an earlier artifact can tell, by its kind.
        notices: what the user must be told.
        inputs: everything that determines the result.
        steps: in order; none for an artifact that the store has.
        estimate: None for an artifact that the store has.
    """

    artifact: str
    state: Literal["in the store", "to be made"]
    reasons: tuple[str, ...]
    key: str | None
    unknown: tuple[str, ...]
    notices: tuple[str, ...]
    inputs: Mapping[str, Any]
    steps: tuple[PlannedStep, ...]
    estimate: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What everything together needs.

    Attributes:
        seconds: sum of the estimates.
        download_bytes: sum of the sizes that are known.
        downloads_of_unknown_size: where these come from.
        disk_gigabytes: sum of what steps are known to need.
        memory_gigabytes: the most that a step needs.
    """

    seconds: float
    download_bytes: int
    downloads_of_unknown_size: tuple[str, ...]
    disk_gigabytes: float
    memory_gigabytes: float


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a run would do for one release, Python and variant, artifact by artifact in the order of making.

    ``schema_version`` grows when a field goes away or changes its meaning.
    """

    schema_version: Literal[2]
    release: str
    python: str
    variant: str | None
    artifacts: tuple[PlannedArtifact, ...]
    totals: Totals


def document(builds: BuildGraph, kind: str, target: Target) -> Document:
    """What a run would do to make an artifact, drawn up by a build graph whose past runs tell how long it takes."""
    planned = tuple(_planned(plan, artifact, builds) for plan, artifact in builds.plans(kind, target))
    return Document(
        schema_version=2,
        release=target.release,
        python=target.python,
        variant=target.variant,
        artifacts=planned,
        totals=totals(planned),
    )


def as_json(shown: Document) -> dict[str, Any]:
    """The document as plain JSON; follows ``schema``."""
    plain: dict[str, Any] = TypeAdapter(Document).dump_python(shown, mode="json")
    return plain


def schema() -> dict[str, Any]:
    """JSON Schema of the document; published as docs/schemas/plan.schema.json."""
    title = "What a run of vllm-wheels would do"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(Document).json_schema(),
        "title": title,
    }


def as_markdown(shown: Document) -> str:
    """The document for a person to read."""
    needed, variant = shown.totals, f" {shown.variant}" if shown.variant else ""
    missing = [artifact for artifact in shown.artifacts if artifact.state == "to be made"]
    lines = [f"# Plan: vLLM {shown.release}{variant}, Python {shown.python}", ""]
    if missing:
        lines.append(
            f"To be made: {', '.join(artifact.artifact for artifact in missing)}. About {duration(needed.seconds)}, "
            f"{to_download(needed)} to download, {needed.disk_gigabytes:.1f} GB of disk, "
            f"{needed.memory_gigabytes:.1f} GB of memory."
        )
    else:
        lines.append("Nothing to do: the store has every artifact.")
    for artifact in shown.artifacts:
        lines += ["", *_artifact_lines(artifact)]
    return "\n".join(lines)


def _planned(plan: Plan, artifact: Artifact | None, builds: BuildGraph) -> PlannedArtifact:
    made = artifact is not None
    return PlannedArtifact(
        artifact=plan.artifact,
        state="in the store" if made else "to be made",
        reasons=() if made else _reasons(plan, builds),
        key=plan.key,
        unknown=plan.unknown,
        notices=plan.notices,
        inputs=json.loads(json.dumps(plan.inputs)),
        steps=() if made else tuple(map(PlannedStep.of, plan.steps)),
        estimate=None if made else _estimate(plan, builds.store),
    )


def _reasons(plan: Plan, builds: BuildGraph) -> tuple[str, ...]:
    rule = builds.rules.get(plan.artifact)
    return reasons(rule, plan, last_made(rule, plan.target, builds.store)) if rule else ("the engine does not have it",)


def _estimate(plan: Plan, store: Store) -> Estimate:
    alike = list(islice(_alike(plan, store), PAST_RUNS))
    if not alike:
        return Estimate(seconds=sum(step.seconds or 0 for step in plan.steps))
    past = [artifact.seconds for artifact in alike]
    counted = [counts for artifact in alike if (counts := artifact.details.get("ccache")) and sum(counts.values())]
    misses = median(counts["misses"] / sum(counts.values()) for counts in counted) if counted else None
    return Estimate(seconds=median(past), shortest=min(past), longest=max(past), past_runs=len(past), misses=misses)


def _alike(plan: Plan, store: Store) -> list[Artifact]:
    """Past artifacts of the kind that share the most inputs with a plan, the newest first."""
    inputs = json.loads(json.dumps(plan.inputs))
    past = [
        (sum(artifact.inputs.get(name) == inputs[name] for name in inputs), artifact)
        for artifact in store.artifacts(plan.artifact)
    ]
    most = max((shared for shared, _ in past), default=0)
    return [artifact for shared, artifact in past if shared == most]


def totals(artifacts: Iterable[PlannedArtifact]) -> Totals:
    """What making some artifacts needs together."""
    artifacts = tuple(artifacts)
    steps = [step for artifact in artifacts for step in artifact.steps]
    downloads = [download for step in steps for download in step.downloads]
    return Totals(
        seconds=sum(artifact.estimate.seconds for artifact in artifacts if artifact.estimate),
        download_bytes=sum(download.size or 0 for download in downloads),
        downloads_of_unknown_size=tuple(download.url for download in downloads if download.size is None),
        disk_gigabytes=sum(step.disk_gigabytes or 0 for step in steps),
        memory_gigabytes=max((step.gigabytes or 0 for step in steps), default=0),
    )


def _artifact_lines(artifact: PlannedArtifact) -> list[str]:
    if artifact.estimate is None:
        return [f"## {artifact.artifact}: in the store", "", f"`{artifact.key}`"]
    unknown = [f"Not yet known, because it is not made: {', '.join(artifact.unknown)}.", ""] if artifact.unknown else []
    steps = [line for number, step in enumerate(artifact.steps, 1) for line in _step_lines(number, step)]
    notices = [f"- NOTICE: {notice}" for notice in artifact.notices]
    head = [
        f"## {artifact.artifact}: to be made, {_basis(artifact.estimate)}",
        "",
        f"Why: {'; '.join(artifact.reasons)}.",
        "",
    ]
    return [*head, *unknown, *notices, *steps]


def _basis(estimate: Estimate) -> str:
    about = f"about {duration(estimate.seconds)}"
    if not estimate.past_runs:
        return f"{about} (a guess)"
    span = f"{duration(estimate.shortest or 0)} to {duration(estimate.longest or 0)}"
    return f"{about} (past runs: {estimate.past_runs}, {span})"


def _step_lines(number: int, step: PlannedStep) -> list[str]:
    lines = [f"{number}. {step.title}"]
    if step.gigabytes or step.disk_gigabytes:
        lines.append(f"   - needs {step.gigabytes or 0:.1f} GB of memory, {step.disk_gigabytes or 0:.1f} GB of disk")
    lines += [f"   - downloads {_download(each)}" for each in step.downloads]
    lines += [f"   - writes `{path}`" for path in step.writes]
    for invocation in step.invocations:
        lines += [f"     {line}" for line in ("```sh", *_shell(invocation), "```")]
    return lines


def _shell(invocation: Invocation) -> list[str]:
    where = PLACES.get(invocation.place)
    remarks = [f"# {remark}" for remark in (where, invocation.condition) if remark]
    # One variable a line, as a person would type it.
    environment = [f"{name}={_word(value)} \\" for name, value in sorted(invocation.environment.items())]
    folder = [f"cd {_word(invocation.folder)}"] if invocation.folder else []
    return [*remarks, *folder, *environment, " ".join(_word(word) for word in invocation.words)]


def _word(text: str) -> str:
    # What stands in braces or brackets is not known yet and no word of a shell.
    return text if OPEN.search(text) else shlex.quote(text)


def _download(wanted: Download) -> str:
    size = f"{wanted.size / MEGABYTE:.1f} MB" if wanted.size is not None else "size unknown"
    return f"{wanted.url} ({size})"


def to_download(totals: Totals) -> str:
    """What has to be downloaded, to be read."""
    known = f"{totals.download_bytes / MEGABYTE:.1f} MB"
    unknown = len(totals.downloads_of_unknown_size)
    return f"{known} and {unknown} files of unknown size" if unknown else known


def duration(seconds: float) -> str:
    """A time to be read: seconds below two minutes, else minutes."""
    return f"{seconds / MINUTE:.0f} min" if seconds >= 2 * MINUTE else f"{seconds:.0f} s"
