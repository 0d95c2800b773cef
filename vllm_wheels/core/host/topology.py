"""Cores, NUMA nodes and pages of this machine, as far as this process may use them."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.host.machine import GIGABYTE, ROOT, memory_available

GIBIBYTE = 2**30
CHOSEN = re.compile(r"\[(\w+)\]")
TOTAL = re.compile(r"MemTotal:\s+(\d+) kB")


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What the machine offers to threads.

    Attributes:
        logical: processors that this process may use.
        physical: the first processor of each of their physical cores.
        node_gigabytes: memory of each NUMA node, in GiB.
        available_gigabytes: memory that can be had without swapping, in GiB.
        huge_pages: setting of transparent huge pages, such as ``madvise``; empty where there are none.
    """

    logical: int
    physical: tuple[int, ...]
    node_gigabytes: tuple[float, ...]
    available_gigabytes: float
    huge_pages: str


def topology(*, root: Path = ROOT) -> Topology:
    """Reads it from the kernel's files; where it lists no nodes, all memory is one."""
    allowed = sorted(os.sched_getaffinity(0))
    first = {_siblings(root, cpu): cpu for cpu in reversed(allowed)}
    pages = CHOSEN.search(_text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return Topology(
        logical=len(allowed),
        physical=tuple(sorted(first.values())),
        node_gigabytes=tuple(_nodes(root)) or (_total(root / "proc/meminfo"),),
        available_gigabytes=memory_available(root=root) * GIGABYTE / GIBIBYTE,
        huge_pages=pages[1] if pages else "",
    )


def _siblings(root: Path, cpu: int) -> str:
    """The processors of its core as the kernel lists them; its own number where it does not."""
    return _text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)


def _nodes(root: Path) -> Iterator[float]:
    for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        if gigabytes := _total(folder / "meminfo"):
            yield gigabytes


def _total(path: Path) -> float:
    found = TOTAL.search(_text(path))
    return int(found[1]) * 1024 / GIBIBYTE if found else 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
