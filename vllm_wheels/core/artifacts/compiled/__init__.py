"""Upstream's raw wheel of a variant, compiled and stripped, and its build log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_wheels.core.artifacts.compiled.configuration import BUILD
from vllm_wheels.core.engine.rule import COMPILING, Rule, Scope, planned_by


def constants(_: str | None) -> Mapping[str, Any]:
    """The build's configuration; no other code of ours decides, so that no edit of it compiles anything again."""
    return BUILD


RULE = Rule(
    kind="compiled",
    title="The variant's extensions, compiled and stripped; without names and texts",
    needs=("source", "onednn", "torch_env", "native"),
    scope=Scope.RELEASE | Scope.PYTHON | Scope.VARIANT,
    plan=planned_by(__name__),
    constants=constants,
    observed=("toolchain", "Compiler and image of the builder"),
    stage="compile",
    labels=frozenset({"cplusplus"}),
    slot="compile",
    hardware=COMPILING,
    phrases={"abi": "stable ABI changed{values}", "builder": "{rest} of the builder changed{values}"},
)
