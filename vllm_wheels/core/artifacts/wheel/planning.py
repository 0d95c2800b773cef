"""Makes the finished wheel of a variant from its compiled one: named, documented, repaired, with its provenance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.artifacts.compiled import LOG, RAW, stable_abi
from vllm_wheels.core.artifacts.wheel.assemble import assemble
from vllm_wheels.core.artifacts.wheel.provenance import DO_NOT_UPLOAD, statement
from vllm_wheels.core.artifacts.wheel.repair import grafting, repair
from vllm_wheels.core.artifacts.wheel.sbom import PLACE as SBOM
from vllm_wheels.core.artifacts.wheel.sbom import Contents, bill_of_materials
from vllm_wheels.core.artifacts.wheel.statement import in_toto, settings_of, slsa
from vllm_wheels.core.engine.plan import Action, ActionContext, Plan, Step
from vllm_wheels.core.formats.wheelfile import sha256_of, wheel_in
from vllm_wheels.core.host.commands import STAGE, Invocation

if TYPE_CHECKING:
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.patches.upstream import Upstream
    from vllm_wheels.core.target import Target

PROVENANCE, STATEMENT = "provenance.json", "intoto.json"
NEEDED = ("compiled", "metadata", "tools")
EPOCH = 1577836800
"""Time stamp of every member of a wheel, 2020-01-01, so that the same inputs give the same bytes."""

LAYOUT = 1
"""Raised when this module puts something else into a wheel, so that wheels of before are put together again."""


def plan(target: Target, *, upstream: Upstream | None, artifacts: Mapping[str, Artifact]) -> Plan:
    """The plan of artifact ``wheel``: nothing in it compiles.

    Args:
        target: release, Python and variant; the Python is not among the inputs.
        upstream: what the tree demands; None while the source is missing.
        artifacts: all that are made, by kind; of these ``compiled``, ``metadata`` and ``tools`` make the wheel.
    """
    unknown = tuple(kind for kind in NEEDED if kind not in artifacts)
    inputs = {} if unknown else {"layout": LAYOUT, **{kind: artifacts[kind].key for kind in NEEDED}}
    provenance = {} if unknown else statement(target, artifacts)
    return Plan(
        artifact="wheel",
        target=target,
        inputs=inputs,
        steps=_steps(target, upstream, artifacts, provenance),
        unknown=unknown,
    )


def _steps(
    target: Target, upstream: Upstream | None, artifacts: Mapping[str, Artifact], provenance: Mapping[str, Any]
) -> tuple[Step, ...]:
    folders = {kind: str(artifacts[kind].folder) if kind in artifacts else f"<{kind}, not made yet>" for kind in NEEDED}
    return (
        Step(
            title="name and document the compiled wheel",
            action="wheel.assemble",
            arguments={
                "compiled": folders["compiled"],
                "metadata": folders["metadata"],
                "abi": stable_abi(upstream, target.python) if upstream else None,
                "for_release": provenance.get("for_release"),
            },
            reads=(folders["compiled"], folders["metadata"]),
            writes=(f"{STAGE}/assembled",),
            seconds=4,
        ),
        Step(
            title="graft outside libraries and find the platform tag",
            action="wheel.repair",
            arguments={
                "tools": folders["tools"],
                "python": target.python,
                "contents": asdict(Contents.of(target, artifacts)) if provenance else None,
            },
            reads=(f"{STAGE}/assembled", folders["tools"]),
            writes=(f"{STAGE}/repair.log",),
            seconds=8,
            invocations=(grafting(EPOCH),),
        ),
        Step(
            title="put the build log and the provenance beside the wheel",
            action="wheel.finish",
            arguments={
                "compiled": folders["compiled"],
                "provenance": provenance,
                "predicate": slsa(target, artifacts) if provenance else None,
            },
            reads=(folders["compiled"],),
            writes=(f"{STAGE}/{LOG}", f"{STAGE}/{PROVENANCE}", f"{STAGE}/{STATEMENT}"),
            seconds=1,
        ),
    )


def put_together(context: ActionContext, *, compiled: str, metadata: str, abi: str, for_release: bool) -> None:
    """Gives the raw wheel the variant's name, texts and Python-level patches.

    Raises:
        WheelError: the raw wheel is not what the overlay expects.
    """
    source = Path(metadata)
    facts = json.loads((source / "artifact.json").read_text("utf-8"))["facts"]
    text = context.stage / "METADATA"
    written = (source / "METADATA").read_text("utf-8")
    text.write_text(written if for_release else mark_private(written), "utf-8")
    assemble(
        wheel_in(Path(compiled) / RAW),
        source / "overlay",
        text,
        context.stage / "assembled",
        distribution=facts["distribution"],
        version=facts["version"],
        abi=abi,
        epoch=EPOCH,
        platform=facts["platform"],
        additions=facts["additions"],
    )
    text.unlink()


def mark_private(metadata: str) -> str:
    """METADATA with the classifier by which an index refuses an upload (PyPI's list of classifiers, "Private ::")."""
    headers, blank, body = metadata.partition("\n\n")
    return f"{headers}\nClassifier: {DO_NOT_UPLOAD}{blank}{body}"


def fit(
    context: ActionContext, *, tools: str, python: str, contents: Mapping[str, Any], invocations: tuple[Invocation, ...]
) -> dict[str, Any]:
    """Repairs the assembled wheel and puts the list of what is in it inside (PEP 770).

    Returns:
        Facts ``sha256``, ``platforms``, ``grafted`` and ``plain_linux_because``.

    Raises:
        WheelError: see ``repair.repair``.
    """
    assembled = context.stage / "assembled"
    (invocation,) = invocations
    done = repair(
        wheel_in(assembled),
        context.stage,
        builder=context.builder,
        tools=Path(tools) / "env",
        python=python,
        epoch=EPOCH,
        invocation=invocation,
        log=context.stage / "repair.log",
        describe=lambda folder, grafted: {SBOM: bill_of_materials(Contents(**contents), folder, grafted, epoch=EPOCH)},
    )
    shutil.rmtree(assembled)
    return {
        "sha256": sha256_of(done.path),
        "platforms": done.platforms,
        "grafted": done.grafted,
        "plain_linux_because": done.reason,
    }


def finish(
    context: ActionContext, *, compiled: str, provenance: Mapping[str, Any], predicate: Mapping[str, Any]
) -> None:
    """Writes the build log, the provenance, and the statement to rebuild from; both name the wheel's hash."""
    shutil.copyfile(Path(compiled) / LOG, context.stage / LOG)
    path = wheel_in(context.stage)
    complete = {"wheel": path.name, "sha256": sha256_of(path), **provenance}
    (context.stage / PROVENANCE).write_text(json.dumps(complete, indent=1, sort_keys=True), "utf-8")
    stated = in_toto(path, predicate, settings=settings_of(context.settings), log=context.stage / LOG)
    (context.stage / STATEMENT).write_text(json.dumps(stated, indent=1, sort_keys=True), "utf-8")


ACTIONS: Mapping[str, Action] = {"wheel.assemble": put_together, "wheel.repair": fit, "wheel.finish": finish}
