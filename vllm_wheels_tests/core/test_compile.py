"""Compiling: what a failure is called, which tag a wheel may have."""

from __future__ import annotations

import pytest

from vllm_wheels.core.artifacts.compiled.planning import explained, stable_abi
from vllm_wheels.core.errors import BuildError, CompilerKilledError
from vllm_wheels.core.host.processes import Finished
from vllm_wheels.core.patches.upstream import Upstream


def ended(status: int) -> Finished:
    return Finished(argv=("ninja",), status=status, seconds=1.0, tail=())


def upstream(*pythons: str, later: tuple[tuple[str, str], ...] = ()) -> Upstream:
    return Upstream(
        release="0.32.0",
        family="unified",
        torch="2.13.0",
        pythons=pythons,
        onednn_url="",
        onednn_tag="v3.13",
        extensions=("_C",),
        build_requirements=(),
        runtime_requirements=(),
        later_extensions=later,
    )


def test_first_error_of_the_log_is_the_reason(tmp_path):
    """The line that matters is picked out of thousands."""
    lines = ["[1/9] Building", "x.cpp:3:1: error: first", "y.cpp:4:1: error: second", "ninja: build stopped"]
    error = explained(ended(1), lines, log=tmp_path / "build.log")
    assert (type(error), error.why) == (BuildError, "x.cpp:3:1: error: first")
    assert str(tmp_path / "build.log") in error.remedy


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (1, "g++-14: fatal error: Killed signal terminated program cc1plus"),
        (1, "cc1plus: out of memory allocating 65536 bytes"),
        (-9, "[7/9] Building"),
        (137, "[7/9] Building"),
    ],
)
def test_killed_compiler_is_told_apart_from_a_wrong_source(tmp_path, status, line):
    """Too little memory has another remedy than an error in the source."""
    error = explained(ended(status), ["[1/9] Building", line], log=tmp_path / "build.log")
    assert isinstance(error, CompilerKilledError)
    assert "add memory" in error.remedy


def test_silent_failure_still_has_a_reason(tmp_path):
    """Even a build that prints nothing ends with three full lines."""
    assert explained(ended(2), [], log=tmp_path / "build.log").why == "it printed nothing"


def test_tag_is_the_lowest_python_that_gets_the_same_extensions():
    """A wheel never promises itself to a Python for which upstream builds less."""
    assert stable_abi(upstream("3.11", "3.12"), "3.12") == "cp311"
    older = upstream("3.10", "3.11", "3.12", later=(("spinloop", "3.11"), ("fs_io_C", "3.11")))
    assert (stable_abi(older, "3.12"), stable_abi(older, "3.10")) == ("cp311", "cp310")
    assert stable_abi(upstream("3.9", "3.10"), "3.10") == "cp39"
