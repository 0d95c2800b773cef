"""Decides whether a wheel may be published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vllm_wheels.core.errors import PublicationError
from vllm_wheels.core.verify.gate import require_passed
from vllm_wheels.core.verify.report import Report
from vllm_wheels.core.wheelfile import sha256_of, wheel_in

if TYPE_CHECKING:
    from vllm_wheels.core.store import Piece


def require_publishable(wheel: Piece, verification: Piece) -> None:
    """Refuses whatever may not be published.

    Raises:
        VerificationError: the report convicts the wheel.
        CannotVerifyError: there is no verdict on exactly this wheel.
        PublicationError: the wheel deviates from its release's pins, or no repository is configured.
    """
    path = wheel_in(wheel.folder)
    report = Report.from_json(json.loads((verification.folder / "report.json").read_text("utf-8")))
    require_passed(report, sha256=sha256_of(path))
    statement = json.loads((wheel.folder / "provenance.json").read_text("utf-8"))
    if not statement["for_release"]:
        what = f"{path.name} is not for release"
        why = "; ".join(statement["deviations"])
        raise PublicationError(what, why=why, remedy="build it from the official pieces, with substitutes = refuse")
    what = f"{path.name} is not published"
    raise PublicationError(what, why="no repository is configured", remedy="take it from the output folder")
