"""What wheels depend on and nobody here makes: observed, so that Dagster itself sees what became stale and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from vllm_wheels.core.engine.plan import digest
from vllm_wheels.defs.partitions import PARTITIONS

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import BuildGraph
    from vllm_wheels.core.target import Target

INPUTS = {
    "upstream": "The release as the package index, the git host or the local folder has it now",
    "packages": "What the package index answers for CPU torch and the build requirements",
    "toolchain": "Compiler and image of the builder, oneDNN source, and the tools that repair wheels",
    "settings": "What of the user's settings goes into names and texts, with the README template",
}
"""Observed assets by name; the artifacts that read them are in ``assets.NEEDS``."""

OF_SETTINGS = ("distributions", "wheel", "torch_version", "template_sha256")
"""What of the inputs of artifact ``metadata`` comes from the settings."""

TOOLCHAIN = ("compiled", "onednn", "tools")


class Known(Protocol):
    """A finished artifact, or the plan of one."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What determines it."""

    @property
    def key(self) -> str | None:
        """Hash of that; None while a part is unknown."""


def specs() -> list[dg.AssetSpec]:
    """The observed assets; partitioned as everything is, since each run observes what it used."""
    return [
        dg.AssetSpec(name, description=text, group_name="inputs", partitions_def=PARTITIONS, kinds={"observed"})
        for name, text in INPUTS.items()
    ]


def versions(known: Mapping[str, Known], builder: Mapping[str, Any] | None) -> dict[str, str]:
    """Data versions of the observed assets, as far as they follow from what is known.

    Args:
        known: artifacts or plans of one partition, by kind.
        builder: identity of the builder; None where nobody asked it.
    """
    found: dict[str, str] = {}
    for name, kind in (("upstream", "source"), ("packages", "torch_env")):
        if kind in known and (version := known[kind].key):
            found[name] = version
    metadata = known.get("metadata")
    if metadata and metadata.key:
        found["settings"] = digest({name: metadata.inputs[name] for name in OF_SETTINGS})
    parts = {kind: known[kind].key for kind in ("onednn", "tools") if kind in known}
    if builder and all(parts.values()) and len(parts) == len(TOOLCHAIN) - 1:
        found["toolchain"] = digest({"builder": dict(builder), **parts})
    return found


def look(builds: BuildGraph, target: Target) -> dict[str, str]:
    """Data versions of the observed assets as they are now: plans, makes nothing.

    Raises:
        VllmWheelsError: a server, the builder or a setting does not let the plan be drawn up.
    """
    plans = {plan.artifact: plan for plan, _ in builds.plans("wheel", target)}
    return versions(plans, plans["compiled"].inputs.get("builder"))
