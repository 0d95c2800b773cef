"""Code versions of the assets: each changes with that of our code and data which the core's keys notice too.

What comes from the user's settings is not code: it is observed (``inputs``), since a code version is as old as the
process that serves the definitions.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_wheels.core.engine.plan import digest
from vllm_wheels.core.engine.revisions import BUILD, READING
from vllm_wheels.core.variants import variants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CORE = "vllm_wheels.core"
LENGTH = 12
UNCHANGED = "1"
"""Of assets whose code is in no key."""


def code_version(kind: str, variant: str | None) -> str:
    """Code version of the asset of a kind of artifact, for a variant where it belongs to one."""
    return digest({"code": CODE[kind](variant)})[:LENGTH]


def _patched(variant: str | None) -> dict[str, Any]:
    known = variants()
    return {
        "variant": asdict(known[variant]) if variant else None,
        "variants": {name: [other.floor, other.processors] for name, other in known.items()},
        "patches": _sources("patches"),
    }


@cache
def _sources(folder: str) -> str:
    """Hash of a folder of our own code, without importing it."""
    digest = hashlib.sha256()
    root = Path(str(files(CORE).joinpath(folder)))
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


CODE: Mapping[str, Callable[[str | None], Any]] = {
    "source": lambda _: READING,
    "torch_env": lambda _: UNCHANGED,
    "metadata": _patched,
    "wheel": lambda _: BUILD,
    "verification": lambda _: _sources("verify"),
    "release": lambda _: UNCHANGED,
}
