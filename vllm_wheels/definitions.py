"""Composes the code location; nothing is decided here."""

from __future__ import annotations

import dagster as dg

from vllm_wheels.defs.assets import all_assets
from vllm_wheels.defs.resources import BuildMode, BuildOptions
from vllm_wheels.defs.toolchain import toolchain

defs = dg.Definitions(
    assets=[toolchain, *all_assets()],
    resources={"build_mode": BuildMode(), "build_options": BuildOptions()},
    executor=dg.in_process_executor,
)
