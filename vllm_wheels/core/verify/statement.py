"""Reads the provenance statement that lies beside a wheel."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.formats.wheel_name import sidecar


def provenance_of(wheel: Path) -> Mapping[str, Any] | None:
    """The provenance statement beside a wheel; None where there is none about a wheel of this name."""
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
