"""The checks that look through a wheel without installing it, a module per question."""

from __future__ import annotations

from vllm_wheels.core.verify.checks import Check
from vllm_wheels.core.verify.static import (
    abi,
    binaries,
    contents,
    described,
    guard,
    index,
    licence,
    machine_code,
    names,
    platform,
    provenance,
    record,
    sbom,
    syntax,
    torch,
)
from vllm_wheels.core.verify.unpacked import UnpackedWheel

STATIC: tuple[Check[UnpackedWheel], ...] = (
    *names.CHECKS,
    *record.CHECKS,
    *contents.CHECKS,
    *described.CHECKS,
    *licence.CHECKS,
    *index.CHECKS,
    *torch.CHECKS,
    *platform.CHECKS,
    *abi.CHECKS,
    *binaries.CHECKS,
    *machine_code.CHECKS,
    *guard.CHECKS,
    *syntax.CHECKS,
    *sbom.CHECKS,
    *provenance.CHECKS,
)
"""In the order in which a report lists them."""
