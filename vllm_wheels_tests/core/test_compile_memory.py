"""A compiler killed for lack of memory: fewer jobs, and what is compiled is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vllm_wheels.core.engine.store import Artifact
from vllm_wheels.core.errors import CompilerKilledError
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.operations.progress import COUNTER
from vllm_wheels.core.patches.upstream import CMAKE
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels_tests.fixtures import releases
from vllm_wheels_tests.fixtures.building import PYTHON

pytestmark = pytest.mark.slow

TARGET = Target(release="0.32.0", python=PYTHON, variant="baseline")
ROOM_FOR_ONE = """\
#!/bin/sh
# A machine with memory for {rooms} compilers: whoever comes beside them gets next to none.
case " $* " in *" -c "*/csrc/*)
    for room in {numbers}; do
        eval "exec 9> {folder}/room-$room"
        flock -n 9 && exec {compiler} "$@"
    done
    ulimit -v 40000
esac
exec {compiler} "$@"
"""


def put_compiler(folder: Path, monkeypatch, *, rooms: int) -> None:
    """Makes CXX a compiler for which the machine has memory so many times."""
    compiler = shutil.which("g++")
    program = folder / "g++"
    numbers = " ".join(str(number) for number in range(rooms))
    text = ROOM_FOR_ONE.format(rooms=rooms, numbers=numbers, folder=folder, compiler=compiler)
    program.write_text(text, "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setenv("CC", str(shutil.which("gcc")))
    # It counts in a folder that a sandbox does not show.
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__UNGUARDED", "true")


def compiled(said: list[str]) -> Artifact:
    return build_graph(load(), say=said.append).ensure("compiled", TARGET)


def going_on(said: list[str]) -> list[str]:
    return [line for line in said if "the compiler was killed" in line]


def counters(artifact: Artifact) -> list[tuple[int, int]]:
    """What ninja had finished and of how much, line by line."""
    lines = (artifact.folder / "build.log").read_text("utf-8").splitlines()
    return [(int(found[1]), int(found[2])) for line in lines if (found := COUNTER.match(line))]


def test_compiler_without_memory_goes_on_with_one_job(cold_compiler, tmp_path, monkeypatch):
    """When two compilers do not fit into memory, my build goes on with one, says so, and compiles nothing twice."""
    put_compiler(tmp_path, monkeypatch, rooms=1)
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__MAX_JOBS", "2")
    said: list[str] = []
    artifact = compiled(said)
    line = "NOTICE: the compiler was killed, as memory ran out: going on with one job; what is compiled is kept"
    assert going_on(said) == [line]
    totals = [total for _, total in counters(artifact)]
    assert totals[-1] < totals[0], "the second attempt had less to do"


def test_compiler_that_finds_no_memory_at_all_is_an_error(cold_compiler, tmp_path, monkeypatch):
    """When not even one compiler fits into memory, I am told to add some."""
    put_compiler(tmp_path, monkeypatch, rooms=0)
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__MAX_JOBS", "2")
    said: list[str] = []
    with pytest.raises(CompilerKilledError) as caught:
        compiled(said)
    assert len(going_on(said)) == 1
    assert "add memory" in caught.value.remedy


def table(name: str, *, entries: int) -> str:
    """A source whose compiler needs 170 bytes and more for each entry."""
    return f"extern const int {name}[];\nconst int {name}[] = {{{','.join(['7'] * entries)}}};\n"


@pytest.mark.container
def test_container_above_its_memory_goes_on_with_fewer_jobs(cold_compiler, tmp_path, monkeypatch):
    """When the kernel kills compilers of a container for its limit of memory, the build goes on with one job."""
    heavy = {f"csrc/cpu/{name}.cpp": table(name, entries=3_000_000) for name in ("first", "second")}
    cmake = releases.text("unified", CMAKE)
    opening = "set(VLLM_EXT_SRC_AVX2\n"
    assert cmake.count(opening) == 1
    listed = opening + "".join(f'        "{path}"\n' for path in heavy)
    tree = releases.unpacked("unified", "0.32.0", tmp_path / "tree", {**heavy, CMAKE: cmake.replace(opening, listed)})
    for name, value in {
        "VLLM_WHEELS_SOURCE__ORIGIN": "path",
        "VLLM_WHEELS_SOURCE__PATH": str(tree),
        "VLLM_WHEELS_BUILDER__KIND": "container",
        "VLLM_WHEELS_BUILDER__IMAGE": "debian",
        "VLLM_WHEELS_BUILDER__MAX_JOBS": "2",
        "VLLM_WHEELS_BUILDER__MEMORY_GIGABYTES": "0.8",
    }.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    compiled(said)
    assert len(going_on(said)) == 1
