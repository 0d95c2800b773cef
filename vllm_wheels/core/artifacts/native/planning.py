"""Plans the build files of a variant, which are taken from all that its patches change."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_wheels.core.artifacts.patched.planning import CHANGED, hash_of, native_of, read_back, write_files
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.host.commands import STAGE

KIND = "native"


@dataclass(frozen=True, kw_only=True)
class Taking:
    """Arguments of ``write``: the folders of the artifacts ``patched`` and ``source``."""

    patched: str
    source: str


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``native``."""
    folders = {
        kind: str(context.known[kind].folder) if kind in context.known else f"<{kind}, not made yet>"
        for kind in ("patched", "source")
    }
    step = Step(
        title=f"take the build files of vLLM {context.target.release} for {context.target.variant}",
        action=write,
        arguments=Taking(**folders),
        reads=(f"{folders['patched']}/{CHANGED}",),
        writes=(f"{STAGE}/{KIND}",),
        seconds=1,
    )
    return Plan(artifact=KIND, target=context.target, inputs={}, steps=(step,))


def write(context: ActionContext, arguments: Taking) -> Made:
    """Writes the patched build files into the stage; their hash is the fact ``sha256``."""
    root = context.path(arguments.source) / "tree"
    files = native_of(read_back(context.path(arguments.patched), root, "", ()))
    write_files(context.stage / KIND, files)
    return Made(facts={"sha256": hash_of(files)})
