"""The statement that accompanies a wheel: what it was made of, by which builder, and whether it may be released."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.artifacts.compiled.configuration import BUILD

if TYPE_CHECKING:
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.target import Target

DO_NOT_UPLOAD = "Private :: Do Not Upload"
"""Classifier by which a package index refuses a wheel that deviates from its release's pins."""

SCHEMA = 2


def statement(target: Target, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """What a wheel was made of, as plain JSON."""
    source, torch_env, compiled = artifacts["source"], artifacts["torch_env"], artifacts["compiled"]
    deviations = list(compiled.facts["deviations"])
    return {
        "schema": SCHEMA,
        "made_by": f"vllm-wheels {version('vllm-wheels')}",
        "release": target.release,
        "pythons": list(source.details["upstream"]["pythons"]),
        "variant": target.variant,
        "same_code_as": artifacts["metadata"].facts["same_code_as"],
        "compiled_on_python": target.python,
        "for_release": not deviations,
        "deviations": deviations,
        "source": {"tree_sha256": source.facts["tree_sha256"], **source.details["origin"]},
        "onednn": artifacts["onednn"].details["onednn"],
        "torch": {
            "torch": torch_env.facts["torch"],
            "left_out": torch_env.facts["left_out"],
            **{name: torch_env.details[name] for name in ("packages", "lock_sha256")},
        },
        "builder": compiled.inputs["builder"],
        "build": {"abi": compiled.inputs["abi"], "build": BUILD, "native": artifacts["native"].facts["sha256"]},
        "compile_seconds": compiled.details["seconds"],
        "ccache": compiled.details["ccache"],
        "artifacts": {kind: artifact.key for kind, artifact in artifacts.items()},
    }
