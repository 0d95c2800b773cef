"""Upstream's raw wheel of a variant, compiled and stripped, and its build log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope

BUILD = {"type": "Release", "cmake_args": "-DENABLE_AMX_FP8=OFF", "epoch": "1577836800", "paths": "as they are"}
"""What of the build's configuration determines objects, besides the variant. The epoch is 2020-01-01.

Paths are those of the sources; failed assertions name them.
"""


def constants(_: str | None) -> Mapping[str, Any]:
    """The build's configuration; no other code of ours decides, so that no edit of it compiles anything again."""
    return BUILD


def _plan(context: PlanContext) -> Plan:
    from vllm_wheels.core.artifacts.compiled import planning  # noqa: PLC0415 - as in ``artifacts.source``

    return planning.plan(context)


RULE = Rule(
    kind="compiled",
    title="The variant's extensions, compiled and stripped; without names and texts",
    needs=("source", "onednn", "torch_env", "native"),
    scope=Scope.RELEASE | Scope.PYTHON | Scope.VARIANT,
    plan=_plan,
    constants=constants,
    observed=("toolchain", "Compiler and image of the builder"),
    stage="compile",
    labels=frozenset({"cplusplus"}),
    pool="compile",
    phrases={"abi": "stable ABI changed{values}", "builder": "{rest} of the builder changed{values}"},
)
