"""Composes the code location; nothing is decided here."""

from __future__ import annotations

import dagster as dg

from vllm_wheels.core.host.secrets import become_unreadable, refuse_secrets
from vllm_wheels.core.settings import load
from vllm_wheels.defs import automation, freshness, inputs, workers
from vllm_wheels.defs.assets import all_assets, overview
from vllm_wheels.defs.resources import BuildMode, BuildOptions

# Every service and every run begins by loading this module, before any foreign code.
become_unreadable()
refuse_secrets("the code location")
settings = load()

defs = dg.Definitions(
    assets=[*inputs.specs(), freshness.spec(settings), overview(), *all_assets()],
    resources={"build_mode": BuildMode(), "build_options": BuildOptions()},
    jobs=[automation.rebuild(settings)],
    schedules=automation.schedules(settings),
    sensors=[*automation.sensors(settings), automation.overviews(), *automation.notifications(settings)],
    executor=workers.executor(settings, here=dg.in_process_executor),
)
