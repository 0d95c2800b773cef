"""The statement that accompanies a wheel: what it was made of, by which builder, and whether it may be released."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.artifacts.compiled import BUILD
from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheel_name import sidecar

if TYPE_CHECKING:
    from pathlib import Path

    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.target import Target

DO_NOT_UPLOAD = "Private :: Do Not Upload"
"""Classifier by which a package index refuses a wheel that deviates from its release's pins."""

SCHEMA = 2


def statement(target: Target, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """What a wheel was made of, as plain JSON.

    Args:
        target: release, Python and variant.
        artifacts: the artifacts that went into it, by kind.
    """
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


def beside(wheel: Path) -> Mapping[str, Any] | None:
    """The statement that stands beside a wheel; None where there is none about a wheel of this name.

    Raises:
        CannotVerifyError: it cannot be read.
    """
    for path in (sidecar(wheel, "provenance.json"), wheel.with_name("provenance.json")):
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            what = f"{path.name} cannot be read"
            raise CannotVerifyError(what, why=str(error), remedy="build the wheel anew") from error
        if isinstance(found, dict) and found.get("wheel") == wheel.name:
            return found
    return None
