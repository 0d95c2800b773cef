"""Plans the finished wheel of a variant from its compiled one: named, documented, repaired, with its provenance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_wheels.core.artifacts.compiled import tcmalloc
from vllm_wheels.core.artifacts.compiled.planning import LOG, RAW, stable_abi
from vllm_wheels.core.artifacts.source.planning import upstream_of
from vllm_wheels.core.artifacts.wheel.assemble import assemble
from vllm_wheels.core.artifacts.wheel.provenance import DO_NOT_UPLOAD, statement
from vllm_wheels.core.artifacts.wheel.repair import grafting, repair
from vllm_wheels.core.artifacts.wheel.sbom import Contents, bill_of_materials
from vllm_wheels.core.artifacts.wheel.statement import in_toto, settings_of, slsa
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import RECORD
from vllm_wheels.core.formats.wheel_name import OWN_SBOM, wheel_in
from vllm_wheels.core.formats.wheelfile import BUNDLED_TCMALLOC, sha256_of
from vllm_wheels.core.host.commands import STAGE

PROVENANCE, STATEMENT = "provenance.json", "intoto.json"
NEEDED = ("source", "onednn", "torch_env", "native", "compiled", "metadata", "tools")
EPOCH = 1577836800
"""Time stamp of every member of a wheel, 2020-01-01, so that the same inputs give the same bytes."""


@dataclass(frozen=True, kw_only=True)
class Assembling:
    """Arguments of ``put_together``; ``abi`` and ``for_release`` are None while an artifact is missing."""

    compiled: str
    metadata: str
    abi: str | None
    for_release: bool | None


@dataclass(frozen=True, kw_only=True)
class Repairing:
    """Arguments of ``fit``; ``contents`` are None while an artifact is missing."""

    tools: str
    python: str
    contents: Contents | None


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """Arguments of ``finish``; ``predicate`` is None while an artifact is missing."""

    compiled: str
    provenance: Mapping[str, Any]
    predicate: Mapping[str, Any] | None


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``wheel``: nothing in it compiles."""
    complete = all(kind in context.known for kind in NEEDED)
    provenance = statement(context.target, context.known) if complete else {}
    return Plan(artifact="wheel", target=context.target, inputs={}, steps=_steps(context, provenance))


def _steps(context: PlanContext, provenance: Mapping[str, Any]) -> tuple[Step[Any], ...]:
    target, known = context.target, context.known
    folders = {kind: str(known[kind].folder) if kind in known else f"<{kind}, not made yet>" for kind in NEEDED}
    upstream = upstream_of(context)
    return (
        Step(
            title="name and document the compiled wheel",
            action=put_together,
            arguments=Assembling(
                compiled=folders["compiled"],
                metadata=folders["metadata"],
                abi=stable_abi(upstream, target.python) if upstream else None,
                for_release=provenance.get("for_release"),
            ),
            reads=(folders["compiled"], folders["metadata"]),
            writes=(f"{STAGE}/assembled",),
            seconds=4,
        ),
        Step(
            title="graft outside libraries and find the platform tag",
            action=fit,
            arguments=Repairing(
                tools=folders["tools"],
                python=target.python,
                contents=Contents.of(target, known) if provenance else None,
            ),
            reads=(f"{STAGE}/assembled", folders["tools"]),
            writes=(f"{STAGE}/repair.log",),
            seconds=8,
            invocations=(grafting(EPOCH),),
        ),
        Step(
            title="put the build log and the provenance beside the wheel",
            action=finish,
            arguments=Finishing(
                compiled=folders["compiled"],
                provenance=provenance,
                predicate=slsa(target, known) if provenance else None,
            ),
            reads=(folders["compiled"],),
            writes=(f"{STAGE}/{LOG}", f"{STAGE}/{PROVENANCE}", f"{STAGE}/{STATEMENT}"),
            seconds=1,
        ),
    )


def put_together(context: ActionContext, arguments: Assembling) -> None:
    """Gives the raw wheel the variant's name, texts and Python-level patches; raises what ``assemble`` does."""
    source = Path(arguments.metadata)
    facts = json.loads((source / RECORD).read_text("utf-8"))["facts"]
    text = context.stage / "METADATA"
    written = (source / "METADATA").read_text("utf-8")
    taken = Path(arguments.compiled) / tcmalloc.FOLDER
    if taken.is_dir():
        written = with_header(written, "License-File", tcmalloc.LICENCE)
    text.write_text(written if arguments.for_release else mark_private(written), "utf-8")
    assemble(
        wheel_in(Path(arguments.compiled) / RAW),
        source / "overlay",
        text,
        context.stage / "assembled",
        distribution=facts["distribution"],
        version=facts["version"],
        abi=str(arguments.abi),
        epoch=EPOCH,
        platform=facts["platform"],
        additions=facts["additions"],
        **_of_builder(taken),
    )
    text.unlink()


def _of_builder(taken: Path) -> dict[str, Any]:
    """The library that was taken out of the builder image, and its licence."""
    if not taken.is_dir():
        return {}
    licence = (taken / tcmalloc.LICENCE).read_bytes()
    return {
        "bundled": {BUNDLED_TCMALLOC: taken / tcmalloc.LIBRARY},
        "extra": {f"licenses/{tcmalloc.LICENCE}": licence},
    }


def mark_private(metadata: str) -> str:
    """METADATA with the classifier by which an index refuses an upload (PyPI's list of classifiers, "Private ::")."""
    return with_header(metadata, "Classifier", DO_NOT_UPLOAD)


def with_header(metadata: str, name: str, value: str) -> str:
    """METADATA with one more header."""
    headers, blank, body = metadata.partition("\n\n")
    return f"{headers}\n{name}: {value}{blank}{body}"


def fit(context: ActionContext, arguments: Repairing) -> Made:
    """Repairs the assembled wheel and puts the list of what is in it inside (PEP 770); raises what ``repair`` does.

    Returns:
        Facts ``sha256``, ``platforms``, ``grafted`` and ``plain_linux_because``.
    """
    assembled, contents = context.stage / "assembled", arguments.contents
    assert contents is not None  # noqa: S101 - a plan without them has no key, and is not carried out
    (invocation,) = context.invocations
    done = repair(
        wheel_in(assembled),
        context.stage,
        builder=context.builder,
        tools=Path(arguments.tools) / "env",
        python=arguments.python,
        epoch=EPOCH,
        invocation=invocation,
        log=context.stage / "repair.log",
        describe=lambda folder, grafted: {OWN_SBOM: bill_of_materials(contents, folder, grafted, epoch=EPOCH)},
    )
    shutil.rmtree(assembled)
    return Made(
        facts={
            "sha256": sha256_of(done.path),
            "platforms": done.platforms,
            "grafted": done.grafted,
            "plain_linux_because": done.reason,
        }
    )


def finish(context: ActionContext, arguments: Finishing) -> None:
    """Writes the build log, the provenance, and the statement to rebuild from; both name the wheel's hash."""
    shutil.copyfile(Path(arguments.compiled) / LOG, context.stage / LOG)
    path = wheel_in(context.stage)
    complete = {"wheel": path.name, "sha256": sha256_of(path), **arguments.provenance}
    (context.stage / PROVENANCE).write_text(json.dumps(complete, indent=1, sort_keys=True), "utf-8")
    settings = settings_of(context.settings)
    stated = in_toto(path, arguments.predicate or {}, settings=settings, log=context.stage / LOG)
    (context.stage / STATEMENT).write_text(json.dumps(stated, indent=1, sort_keys=True), "utf-8")
