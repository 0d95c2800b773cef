"""Plans the folder of pinned tools that work on wheels inside a builder."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from vllm_wheels.core.artifacts.torch_env.planning import planned, resolve
from vllm_wheels.core.artifacts.torch_env.spec import EnvironmentSpec
from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``tools``: the pins of tools.toml; asks the index, and raises what ``resolve`` does."""
    table = tomllib.loads(files(__package__).joinpath("tools.toml").read_text("utf-8"))
    requirements = tuple(table["requirements"])
    spec = EnvironmentSpec(artifact="tools", python=context.target.python, any_python=True, requirements=requirements)
    resolution = resolve(spec, context.settings, context.store)
    return planned(spec, resolution, context.target, context.settings, torch=False)
