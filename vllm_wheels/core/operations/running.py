"""What a machine needs to run vLLM fast, beside the right variant: by what it has, and what upstream says of a release.

Upstream's documentation is that of the release's own source, where the store has it. Nothing is advised as upstream's
that the release does not document; what it says is quoted with its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.host.topology import Topology
from vllm_wheels.core.patches.preloads import preloads_openmp, preloads_tcmalloc
from vllm_wheels.core.settings import Settings

PAGES = (
    "docs/**/getting_started/installation/cpu.md",
    "docs/**/getting_started/installation/cpu.x86.inc.md",
    "docs/**/getting_started/installation/cpu/x86.inc.md",
)
BIND, RESERVED, SPACE = "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_CPU_KVCACHE_SPACE"
AUTO = rf"{BIND}.*`auto`"
LEADING = re.compile(r"^[\s>*-]+")
FEWEST_TO_SPARE_ONE = 4
"""Physical cores below which a core of its own for the front end costs more than a quarter of the speed."""


@dataclass(frozen=True, kw_only=True)
class Hint:
    """One thing to set or to have.

    Attributes:
        name: a variable, an option of ``vllm``, or what it is about.
        value: to set; None where there is nothing to set.
        upstream: what the release's documentation says, with the file; None where it says nothing.
    """

    name: str
    value: str | None
    why: str
    upstream: str | None


@dataclass(frozen=True, kw_only=True)
class Documentation:
    """A release's source, of which the pages about CPUs are read."""

    root: Path
    pages: Mapping[str, str]

    def says(self, pattern: str) -> str | None:
        """The first line that the pattern matches, with its file."""
        for path, text in self.pages.items():
            if line := next((line for line in text.splitlines() if re.search(pattern, line)), None):
                return f"{path}: {LEADING.sub('', line).strip()}"
        return None


def documentation(settings: Settings, release: str) -> Documentation | None:
    """The documentation of a release; None where the store does not have its source."""
    kept = Store(settings.state_folder / "store").artifacts("source")
    root = next((each.folder / "tree" for each in kept if each.made_for["release"] == release), None)
    if root is None:
        return None
    found = [path for pattern in PAGES for path in sorted(root.glob(pattern))]
    return Documentation(
        root=root, pages={path.relative_to(root).as_posix(): path.read_text("utf-8") for path in found}
    )


def hints(topology: Topology, known: Documentation) -> tuple[Hint, ...]:
    """What to set on a machine, by what a release documents."""
    return (*_threads(topology, known), *_memory(topology, known), *_libraries(known))


def _threads(topology: Topology, known: Documentation) -> Iterator[Hint]:
    cores = len(topology.physical)
    bound = f"one thread on each of {cores} physical cores, of {topology.logical} logical ones"
    if documented := known.says(AUTO):
        yield Hint(name=BIND, value="auto", why=f"the default: {bound}", upstream=documented)
    elif documented := known.says(BIND):
        value = ",".join(str(core) for core in topology.physical)
        yield Hint(name=BIND, value=value, why=bound, upstream=documented)
    if cores >= FEWEST_TO_SPARE_ONE and (documented := known.says(RESERVED)):
        yield Hint(name=RESERVED, value="1", why="a core of its own for the front end", upstream=documented)
    nodes = len(topology.node_gigabytes)
    if nodes > 1:
        why = f"a rank for each of {nodes} NUMA nodes, so that none reads another's memory"
        documented = known.says(r"NUMA.*(tensor|TP|Tensor)|[Tt]ensor.*NUMA")
        yield Hint(name="--tensor-parallel-size", value=str(nodes), why=why, upstream=documented)
        why = "in a container: --cap-add SYS_NICE, or memory cannot be bound to a node"
        yield Hint(name="SYS_NICE", value=None, why=why, upstream=known.says("SYS_NICE"))


def _memory(topology: Topology, known: Documentation) -> Iterator[Hint]:
    smallest = min(topology.node_gigabytes)
    half = max(1, int(min(smallest, topology.available_gigabytes) / 2))
    why = f"GiB, half of what is free; with a rank's weights it must fit into the {smallest:.0f} GiB of a NUMA node"
    yield Hint(name=SPACE, value=str(half), why=why, upstream=known.says(SPACE))
    pages = topology.huge_pages
    why = f"transparent huge pages are {pages} here" if pages else "this kernel has no transparent huge pages"
    yield Hint(name="huge pages", value=None, why=why, upstream=known.says(r"[Hh]uge ?[Pp]ages"))


def _libraries(known: Documentation) -> Iterator[Hint]:
    held = "a wheel built in a container brings it, and vLLM preloads it"
    why = held if preloads_tcmalloc(known.root) else "put the system's libtcmalloc_minimal.so.4 into LD_PRELOAD"
    yield Hint(name="tcmalloc", value=None, why=why, upstream=known.says(r"(?i)tcmalloc"))
    if documented := known.says(r"libiomp5|Intel OpenMP"):
        ours = preloads_openmp(known.root)
        why = "our wheels preload it by themselves" if ours else "put libiomp5.so of intel-openmp into LD_PRELOAD"
        yield Hint(name="libiomp5", value=None, why=why, upstream=documented)
