"""What a machine needs to run vLLM fast, beside the right variant."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_wheels.core.host.topology import Topology, topology
from vllm_wheels.core.operations.running import Documentation, hints

PAGE = "docs/getting_started/installation/cpu.md"
OLD = """\
- `VLLM_CPU_KVCACHE_SPACE`: specify the KV Cache size
- `VLLM_CPU_OMP_THREADS_BIND`: specify the CPU cores dedicated to the OpenMP threads.
- We highly recommend to use TCMalloc
"""
NEW = """\
- `VLLM_CPU_KVCACHE_SPACE`: specify the KV Cache size
- `VLLM_CPU_OMP_THREADS_BIND`: CPU cores of the OpenMP threads, can be lists, `auto` (by default), or `nobind`
- `VLLM_CPU_NUM_OF_RESERVED_CPU`: cores which are not dedicated to OpenMP threads
- on a multi-socket machine with NUMA and tensor parallel each NUMA node is a rank
- make sure TCMalloc and Intel OpenMP are added to `LD_PRELOAD`, libiomp5 that is
"""
SERVER = Topology(
    logical=8, physical=(0, 1, 2, 3), node_gigabytes=(64.0, 32.0), available_gigabytes=80.0, huge_pages="madvise"
)
SMALL = Topology(logical=2, physical=(0, 1), node_gigabytes=(4.0,), available_gigabytes=1.5, huge_pages="")


def told(machine: Topology, text: str, root: Path) -> dict[str, str | None]:
    """Names and values of what is advised for a machine by a page."""
    return {hint.name: hint.value for hint in hints(machine, Documentation(root=root, pages={PAGE: text}))}


def test_server_binds_threads_and_nodes(tmp_path):
    """On two NUMA nodes a rank each, a core for the front end, and memory by the smaller node."""
    found = told(SERVER, NEW, tmp_path)
    assert (found["VLLM_CPU_OMP_THREADS_BIND"], found["VLLM_CPU_NUM_OF_RESERVED_CPU"]) == ("auto", "1")
    assert (found["--tensor-parallel-size"], found["VLLM_CPU_KVCACHE_SPACE"]) == ("2", "16")
    assert {"huge pages", "tcmalloc", "libiomp5", "SYS_NICE"} <= found.keys()


def test_small_machine_keeps_all_its_cores(tmp_path):
    """Of two cores none is kept free, and there is nothing to bind to one node."""
    found = told(SMALL, NEW, tmp_path)
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert not {"VLLM_CPU_NUM_OF_RESERVED_CPU", "--tensor-parallel-size"} & found.keys()


def test_release_that_binds_nothing_by_itself_gets_a_list_of_cores(tmp_path):
    """Before there was "auto", one processor of each physical core is named."""
    found = told(SERVER, OLD, tmp_path)
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "0,1,2,3"
    assert "VLLM_CPU_NUM_OF_RESERVED_CPU" not in found


def test_nothing_is_said_in_upstreams_name_that_it_does_not_say(tmp_path):
    """A hint quotes the page with its file, or says that there is nothing to quote."""
    quoted = {hint.name: hint.upstream for hint in hints(SERVER, Documentation(root=tmp_path, pages={PAGE: OLD}))}
    assert quoted["tcmalloc"] == f"{PAGE}: We highly recommend to use TCMalloc"
    assert quoted["huge pages"] is None


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """A machine with two cores of two threads each, and memory in two nodes."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    texts = {
        f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 2},{cpu % 2 + 2}\n"
        for cpu in range(4)
    }
    texts |= {f"sys/devices/system/node/node{each}/meminfo": f"Node {each} MemTotal: 8388608 kB\n" for each in range(2)}
    texts["sys/kernel/mm/transparent_hugepage/enabled"] = "always [madvise] never\n"
    texts["proc/meminfo"] = "MemTotal: 16777216 kB\nMemAvailable: 4194304 kB\n"
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_machine_is_read_from_the_kernels_files(machine):
    """Two threads of one core count once, and each node has its own memory."""
    found = topology(root=machine)
    assert (found.logical, found.physical, found.node_gigabytes) == (4, (0, 1), (8.0, 8.0))
    assert (round(found.available_gigabytes, 1), found.huge_pages) == (4.0, "madvise")


def test_kernel_without_nodes_has_one(machine):
    """Where the kernel lists no NUMA nodes, all memory is one."""
    for path in (machine / "sys/devices/system/node").glob("node*/meminfo"):
        path.unlink()
    assert topology(root=machine).node_gigabytes == (16.0,)
