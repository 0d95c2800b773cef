"""Code versions of the assets: each changes with that of our code and data which the core's fingerprints notice too.

What comes from the user's settings is not code: it is observed (``inputs``), since a code version is as old as the
process that serves the definitions.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from vllm_wheels.core import compile as compiling
from vllm_wheels.core import source
from vllm_wheels.core.patches import sha256_of_patches
from vllm_wheels.core.plan import fingerprint
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify import smoke

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LENGTH = 12
UNCHANGED = "1"
"""Of assets whose code is in no fingerprint."""


def code_version(kind: str, variant: str | None) -> str:
    """Code version of the asset of a kind of piece, for a variant where it belongs to one."""
    return fingerprint({"code": CODE[kind](variant)})[:LENGTH]


def _patched(variant: str | None) -> dict[str, Any]:
    known = variants()
    return {
        "variant": asdict(known[variant]) if variant else None,
        "variants": {name: [other.floor, other.processors] for name, other in known.items()},
        "patches": _patches(),
    }


_patches = cache(sha256_of_patches)
_checks = cache(smoke.source_sha256)

CODE: Mapping[str, Callable[[str | None], Any]] = {
    "source": lambda _: source.READING,
    "torch_env": lambda _: UNCHANGED,
    "metadata": _patched,
    "wheel": lambda _: compiling.BUILD,
    "verification": lambda _: _checks(),
    "release": lambda _: UNCHANGED,
}
