"""Plans the finished wheel of a variant from its compiled and repaired code: named, documented, with its provenance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_wheels.core.artifacts.compiled import tcmalloc
from vllm_wheels.core.artifacts.compiled.planning import LOG, RAW
from vllm_wheels.core.artifacts.wheel.assemble import assemble
from vllm_wheels.core.artifacts.wheel.provenance import DO_NOT_UPLOAD, statement
from vllm_wheels.core.artifacts.wheel.sbom import Contents, bill_of_materials
from vllm_wheels.core.artifacts.wheel.statement import in_toto, settings_of, slsa
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import RECORD
from vllm_wheels.core.formats.packing import EPOCH
from vllm_wheels.core.formats.wheel_name import OWN_SBOM, wheel_in
from vllm_wheels.core.formats.wheelfile import Member
from vllm_wheels.core.host.commands import STAGE
from vllm_wheels.core.host.files import sha256_of

PROVENANCE, STATEMENT = "provenance.json", "intoto.json"
NEEDED = ("source", "onednn", "torch_env", "patched", "native", "compiled", "metadata", "tools", "repaired")


@dataclass(frozen=True, kw_only=True)
class Assembling:
    """Arguments of ``put_together``; ``contents`` are None while an artifact is missing.

    Attributes:
        grafted: libraries from outside among the repaired code, by their path in the wheel.
    """

    compiled: str
    repaired: str
    metadata: str
    grafted: tuple[str, ...]
    contents: Contents | None
    for_release: bool | None


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
    return (
        Step(
            title="name, document and pack the wheel",
            action=put_together,
            arguments=Assembling(
                compiled=folders["compiled"],
                repaired=folders["repaired"],
                metadata=folders["metadata"],
                grafted=tuple(known["repaired"].facts["grafted"]) if provenance else (),
                contents=Contents.of(target, known) if provenance else None,
                for_release=provenance.get("for_release"),
            ),
            reads=(folders["compiled"], folders["repaired"], folders["metadata"]),
            writes=(STAGE,),
            seconds=4,
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


def put_together(context: ActionContext, arguments: Assembling) -> Made:
    """Puts the variant's name, texts, Python-level patches and repaired code on the raw wheel, and a SBOM (PEP 770).

    Returns:
        Fact ``sha256`` of the wheel; raises what ``assemble`` does.
    """
    source, contents = Path(arguments.metadata), arguments.contents
    assert contents is not None  # noqa: S101 - a plan without them has no key, and is not carried out
    facts = json.loads((source / RECORD).read_text("utf-8"))["facts"]
    text = context.stage / "METADATA"
    written = (source / "METADATA").read_text("utf-8")
    licences = _licences(Path(arguments.compiled) / tcmalloc.FOLDER)
    for name in licences:
        written = with_header(written, "License-File", name)
    text.write_text(written if arguments.for_release else mark_private(written), "utf-8")

    def describe(members: Mapping[str, Member]) -> Mapping[str, bytes]:
        listed = bill_of_materials(contents, members, arguments.grafted, epoch=EPOCH)
        return {OWN_SBOM: listed, **{f"licenses/{name}": content for name, content in licences.items()}}

    wheel = assemble(
        wheel_in(Path(arguments.compiled) / RAW),
        wheel_in(Path(arguments.repaired)),
        source / "overlay",
        text,
        context.stage,
        distribution=facts["distribution"],
        version=facts["version"],
        epoch=EPOCH,
        additions=facts["additions"],
        describe=describe,
    )
    text.unlink()
    return Made(facts={"sha256": sha256_of(wheel)})


def _licences(taken: Path) -> dict[str, bytes]:
    """Licence texts of what was taken out of the builder image."""
    return {tcmalloc.LICENCE: (taken / tcmalloc.LICENCE).read_bytes()} if taken.is_dir() else {}


def mark_private(metadata: str) -> str:
    """METADATA with the classifier by which an index refuses an upload (PyPI's list of classifiers, "Private ::")."""
    return with_header(metadata, "Classifier", DO_NOT_UPLOAD)


def with_header(metadata: str, name: str, value: str) -> str:
    """METADATA with one more header."""
    headers, blank, body = metadata.partition("\n\n")
    return f"{headers}\n{name}: {value}{blank}{body}"


def finish(context: ActionContext, arguments: Finishing) -> None:
    """Writes the build log, the provenance, and the statement to rebuild from; both name the wheel's hash."""
    shutil.copyfile(Path(arguments.compiled) / LOG, context.stage / LOG)
    path = wheel_in(context.stage)
    complete = {"wheel": path.name, "sha256": sha256_of(path), **arguments.provenance}
    (context.stage / PROVENANCE).write_text(json.dumps(complete, indent=1, sort_keys=True), "utf-8")
    settings = settings_of(context.settings)
    stated = in_toto(path, arguments.predicate or {}, settings=settings, log=context.stage / LOG)
    (context.stage / STATEMENT).write_text(json.dumps(stated, indent=1, sort_keys=True), "utf-8")
