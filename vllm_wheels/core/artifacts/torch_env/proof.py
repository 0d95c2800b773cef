"""Proves that an installed torch is a CPU build."""

from __future__ import annotations

import ast
from typing import Any

from vllm_wheels.core.artifacts.torch_env.locking import OFFER_CPU_TORCH
from vllm_wheels.core.engine.plan import ActionContext, Made
from vllm_wheels.core.errors import CudaTorchError, EnvironmentResolutionError


def prove(context: ActionContext, env: str) -> Made:
    """Reads ``torch/version.py`` without importing it; returns fact ``torch``.

    Raises:
        CudaTorchError: torch names a CUDA version, or its own version does not end in ``+cpu``.
        EnvironmentResolutionError: the file says neither.
    """
    path = context.path(env) / "torch" / "version.py"
    try:
        said = _assigned(path.read_text("utf-8"))
        version, cuda = said["__version__"], said["cuda"]
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        what = "the installed torch does not say what it was built for"
        raise EnvironmentResolutionError(what, why=f"torch/version.py: {error!r}", remedy=OFFER_CPU_TORCH) from error
    if cuda is not None or not str(version).endswith("+cpu"):
        what = "the installed torch is not a CPU build"
        raise CudaTorchError(what, why=f"torch/version.py says version {version}, CUDA {cuda}", remedy=OFFER_CPU_TORCH)
    return Made(facts={"torch": version})


def _assigned(text: str) -> dict[str, Any]:
    found = {}
    for node in ast.parse(text).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                found[name] = value
    return found
