"""DAGSTER_HOME of this installation: made once below the state folder, with a configuration that suits one machine."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from vllm_wheels.core.host.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

MODULE = "vllm_wheels.definitions"


def prepare(settings: Settings) -> Path:
    """DAGSTER_HOME: the user's own where that is set, else a folder below the state folder with a dagster.yaml."""
    given = os.environ.get("DAGSTER_HOME")
    if given:
        return _existing(given)
    home = settings.state_folder / "dagster"
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        write_atomically(configuration, files(__package__).joinpath("dagster.yaml").read_text("utf-8"))
    return home


def _existing(given: str) -> Path:
    # Dagster refuses a relative one.
    home = Path(given).expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    return home


def instance(settings: Settings) -> dg.DagsterInstance:
    """The instance of that home, the same one that ``dagster`` commands use in a prepared shell."""
    os.environ["DAGSTER_HOME"] = str(prepare(settings))
    return dg.DagsterInstance.get()


def environment(settings: Settings, target: Target) -> Mapping[str, str]:
    """Variables by which Dagster's own commands find this code location, its instance and the default partition."""
    return {
        "DAGSTER_HOME": str(prepare(settings)),
        "DAGSTER_MODULE_NAME": MODULE,
        # Only this variable makes `dagster asset materialize` work without --partition (dagster.md, "Partitions").
        "DAGSTER_CLI_ASSET_MATERIALIZE_PARTITION": target.partition,
        "VLLM_WHEELS_STATE_FOLDER": str(settings.state_folder),
        "VLLM_WHEELS_OUTPUT_FOLDER": str(settings.output_folder),
        "VLLM_WHEELS_SUBSTITUTES": settings.substitutes,
    }
