"""All checks that run an installed wheel."""

from collections.abc import Iterator
from dataclasses import replace

from vllm_wheels.core.verify.checks import Check, ModuleOfChecks, listed
from vllm_wheels.core.verify.runs import (
    amx,
    commands,
    cpu_platform,
    distributions,
    emulation,
    guard,
    importing,
    installation,
    models,
    processor,
    sidecars,
    torch_build,
)
from vllm_wheels.core.verify.test_run import TestRun

ENVIRONMENT_INPUTS = ("python", "location", "left_out", "index")
"""Inputs that decide the environment into which the wheel is installed."""


def _in_environment(*modules: ModuleOfChecks[TestRun]) -> Iterator[Check[TestRun]]:
    """The checks of modules that use the environment; whatever decides the environment is an input of theirs."""
    for check in listed(*modules):
        inputs, code = (*ENVIRONMENT_INPUTS, *check.inputs), (*check.code, installation.__name__)
        yield replace(check, inputs=inputs, code=code)


IN_ENVIRONMENT: tuple[Check[TestRun], ...] = tuple(
    _in_environment(
        installation,
        distributions,
        torch_build,
        sidecars,
        guard,
        importing,
        commands,
        cpu_platform,
        models,
        emulation,
        amx,
    )
)
"""The installation and the checks that use its environment."""

TEST_RUNS: tuple[Check[TestRun], ...] = (*listed(processor), *IN_ENVIRONMENT)
"""In the order in which they are run and a report lists them."""
