"""Plans the repair of a variant's compiled code: all that the platform tag depends on, and no text or Python code.

Apart from the finished wheel, so that a changed description starts no auditwheel.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_wheels.core.artifacts.compiled import tcmalloc
from vllm_wheels.core.artifacts.compiled.planning import RAW, stable_abi
from vllm_wheels.core.artifacts.repaired.collect import code_of
from vllm_wheels.core.artifacts.repaired.repair import grafting, repair
from vllm_wheels.core.artifacts.source.planning import upstream_of
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.formats.packing import EPOCH
from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.formats.wheelfile import BUNDLED_TCMALLOC
from vllm_wheels.core.host.commands import STAGE
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.names import distributions, version_of
from vllm_wheels.core.variants import platform_for

LOG = "repair.log"
COLLECTED = "collected"


@dataclass(frozen=True, kw_only=True)
class Collecting:
    """Arguments of ``collect``; ``abi`` is None while the source is missing."""

    compiled: str
    distribution: str
    version: str
    platform: str
    abi: str | None


@dataclass(frozen=True, kw_only=True)
class Repairing:
    """Arguments of ``fit``."""

    tools: str
    python: str


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``repaired``: nothing in it compiles; raises what ``distributions`` does."""
    target, known, upstream = context.target, context.known, upstream_of(context)
    named = {
        "distribution": distributions(context.settings)[context.variant.name],
        "version": version_of(target.release, context.settings),
        "platform": platform_for(context.variant),
    }
    abi = stable_abi(upstream, target.python) if upstream else None
    compiled, tools = (
        str(known[kind].folder) if kind in known else f"<{kind}, not made yet>" for kind in ("compiled", "tools")
    )
    steps: tuple[Step[Any], ...] = (
        Step(
            title="collect the compiled code",
            action=collect,
            arguments=Collecting(compiled=compiled, abi=abi, **named),
            reads=(compiled,),
            writes=(f"{STAGE}/{COLLECTED}",),
            seconds=2,
        ),
        Step(
            title="graft outside libraries and find the platform tag",
            action=fit,
            arguments=Repairing(tools=tools, python=target.python),
            reads=(f"{STAGE}/{COLLECTED}", tools),
            writes=(f"{STAGE}/{LOG}",),
            seconds=6,
            invocations=(grafting(EPOCH),),
        ),
    )
    return Plan(artifact="repaired", target=target, inputs={**named, "abi": abi} if abi else {}, steps=steps)


def collect(context: ActionContext, arguments: Collecting) -> None:
    """Packs the compiled code of the raw wheel, and libraries of the builder, alone; raises what ``code_of`` does."""
    compiled = Path(arguments.compiled)
    taken = compiled / tcmalloc.FOLDER / tcmalloc.LIBRARY
    code_of(
        wheel_in(compiled / RAW),
        context.stage / COLLECTED,
        distribution=arguments.distribution,
        version=arguments.version,
        abi=str(arguments.abi),
        platform=arguments.platform,
        epoch=EPOCH,
        bundled={BUNDLED_TCMALLOC: taken} if taken.is_file() else {},
    )


def fit(context: ActionContext, arguments: Repairing) -> Made:
    """Repairs the collected code; raises what ``repair`` does.

    Returns:
        Facts ``sha256``, ``platforms``, ``grafted`` and ``plain_linux_because``.
    """
    collected = context.stage / COLLECTED
    (invocation,) = context.invocations
    done = repair(
        wheel_in(collected),
        context.stage,
        builder=context.builder,
        tools=Path(arguments.tools) / "env",
        python=arguments.python,
        epoch=EPOCH,
        invocation=invocation,
        log=context.stage / LOG,
    )
    shutil.rmtree(collected)
    return Made(
        facts={
            "sha256": sha256_of(done.path),
            "platforms": done.platforms,
            "grafted": done.grafted,
            "plain_linux_because": done.reason,
        }
    )
