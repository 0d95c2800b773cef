"""The statement that accompanies a wheel: what it was made of, by which builder, and whether it may be released."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_wheels.core.store import Piece
    from vllm_wheels.core.target import Target

DO_NOT_UPLOAD = "Private :: Do Not Upload"
"""Classifier by which a package index refuses a wheel that deviates from its release's pins."""

SCHEMA = 1


def statement(target: Target, pieces: Mapping[str, Piece]) -> dict[str, Any]:
    """What a wheel was made of, as plain JSON.

    Args:
        target: release, Python and variant.
        pieces: the pieces that went into it, by kind.
    """
    source, torch_env, compiled = pieces["source"], pieces["torch_env"], pieces["compiled"]
    deviations = [line for piece in pieces.values() for line in piece.facts.get("deviations", ())]
    return {
        "schema": SCHEMA,
        "made_by": f"vllm-wheels {version('vllm-wheels')}",
        "release": target.release,
        "pythons": list(source.facts["upstream"]["pythons"]),
        "variant": target.variant,
        "same_code_as": pieces["metadata"].facts["same_code_as"],
        "compiled_on_python": target.python,
        "for_release": not deviations,
        "deviations": deviations,
        "source": {"tree_sha256": source.facts["tree_sha256"], **source.facts["origin"]},
        "onednn": pieces["onednn"].facts["onednn"],
        "torch": {key: torch_env.facts[key] for key in ("torch", "packages", "left_out", "lock_sha256")},
        "builder": compiled.inputs["builder"],
        "build": {key: compiled.inputs[key] for key in ("abi", "build", "native")},
        "compile_seconds": compiled.facts["seconds"],
        "ccache": compiled.facts["ccache"],
        "pieces": {kind: piece.fingerprint for kind, piece in pieces.items()},
    }
