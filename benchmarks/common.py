"""What the benchmarks of compiling share: costs of processes and containers, figures on paper, results on disk.

A cost has two sides. Wall seconds are what somebody waits; on a machine that does other work meanwhile they tell about
that work as well. CPU seconds (user and system, of all processes and containers) are what the work itself takes. Ratios
of both are printed; the ratio of CPU seconds judges.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, NotFound

from vllm_wheels.core.builders.docker_engine import OWNER, answers
from vllm_wheels.core.host.machine import GIGABYTE, cores, memory_available

RESULTS = Path(__file__).parent / "results"
POLL_SECONDS = 0.5
"""Between two looks at containers; what one computes after the last look is not seen."""

NANOSECONDS = 1e9
KIBIBYTES_PER_MEGABYTE = 1e6 / 1024


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What some work took.

    Attributes:
        wall: seconds from begin to end.
        cpu: seconds of user and system, of all processes and containers.
        peak_megabytes: most memory of the process that was watched, without its children; 0 where none was.
    """

    wall: float
    cpu: float
    peak_megabytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other."""
        peak = max(self.peak_megabytes, other.peak_megabytes)
        return Cost(wall=self.wall + other.wall, cpu=self.cpu + other.cpu, peak_megabytes=peak)

    def times(self, count: int) -> Cost:
        """The same again and again."""
        return Cost(wall=self.wall * count, cpu=self.cpu * count, peak_megabytes=self.peak_megabytes)

    def against(self, other: Cost) -> dict[str, float]:
        """Ratios of both sides."""
        return {"cpu_ratio": round(self.cpu / other.cpu, 3), "wall_ratio": round(self.wall / other.wall, 3)}

    def plain(self) -> dict[str, float]:
        """As plain JSON."""
        return {"cpu_s": round(self.cpu, 1), "wall_s": round(self.wall, 1)}

    def __str__(self) -> str:
        """Both sides for people."""
        return f"{self.cpu:.0f} s of CPU, {self.wall:.0f} s of wall"


@dataclass
class Watch:
    """Looks at a process and its containers from time to time.

    Attributes:
        pid: of the process.
        container_cpu: seconds by container, as last seen.
        peak_megabytes: of the process itself.
    """

    pid: int
    container_cpu: dict[str, float] = field(default_factory=dict)
    peak_megabytes: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Looks until told that it is over."""
        client = docker.from_env() if answers() else None
        while not self._over.wait(POLL_SECONDS):
            self._look_at_memory()
            if client:
                self._look_at_containers(client)
        if client:
            client.close()

    def _look_at_memory(self) -> None:
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text("utf-8").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return
        for line in lines:
            if line.startswith("VmHWM:"):
                self.peak_megabytes = int(line.split()[1]) / KIBIBYTES_PER_MEGABYTE

    def _look_at_containers(self, client: docker.DockerClient) -> None:
        for found in client.api.containers(filters={"label": OWNER}):
            # The label names boot, namespace, process number and its start.
            if found["Labels"][OWNER].split()[-2] == str(self.pid):
                try:
                    stats = client.api.stats(found["Id"], stream=False, one_shot=True)
                except (NotFound, APIError, requests.exceptions.RequestException):
                    # It ended between the two questions.
                    continue
                usage = stats["cpu_stats"]["cpu_usage"]["total_usage"] / NANOSECONDS
                self.container_cpu[found["Id"]] = max(usage, self.container_cpu.get(found["Id"], 0.0))


@contextmanager
def watched(pid: int) -> Iterator[Watch]:
    """Watches a process and its containers meanwhile."""
    watch = Watch(pid)
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch._over.set()  # noqa: SLF001 - two halves of one thing
        thread.join()


def cost_of(work: Callable[[], object]) -> Cost:
    """Cost of work in this process that starts processes or containers; its own thinking is not counted."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with watched(os.getpid()) as watch:
        work()
        wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall=wall, cpu=children + sum(watch.container_cpu.values()))


def cost_of_command(
    argv: list[str], *, environment: Mapping[str, str], log: Path, cwd: Path, accepted: tuple[int, ...] = (0,)
) -> Cost:
    """Cost of a command with all that it starts; another exit status than those accepted ends the benchmark.

    Args:
        argv: the command.
        environment: on top of this process's own.
        log: file for its output.
        cwd: where it runs.
        accepted: exit statuses that are no failure.
    """
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            argv,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=cwd,
        )
        with watched(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        sys.exit(f"status {process.returncode} of {' '.join(argv[-6:])}; the end of {log}:\n{log.read_text()[-3000:]}")
    cpu = usage.ru_utime + usage.ru_stime + sum(watch.container_cpu.values())
    return Cost(wall=wall, cpu=cpu, peak_megabytes=watch.peak_megabytes)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else "unknown",
        "cores": cores(),
        "memory_gigabytes": round(memory_available(), 1),
        "total_memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGABYTE, 1),
        "load": round(os.getloadavg()[0], 1),
        "kernel": os.uname().release,
    }


def arguments(description: str) -> argparse.Namespace:
    """What every benchmark of compiling is asked with."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--real", action="store_true", help="vLLM 0.32.0 instead of the miniature sources")
    parser.add_argument("--artifacts", type=Path, help="state folder whose downloaded artifacts are used (hard links)")
    parser.add_argument(
        "--state", type=Path, help="state folder of all variants, built by an earlier run of the same code"
    )
    parser.add_argument("--folder", type=Path, help="where to work, and leave everything [default: a temporary one]")
    parser.add_argument("--save", action="store_true", help="keep the figures below benchmarks/results")
    return parser.parse_args()


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """The folder to work in; a temporary one goes afterwards."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()
        return
    temporary = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a benchmark found.

    Attributes:
        benchmark: its name.
        text: for people.
        value: what its limit is about; None where there is none.
        limit: at most this.
        details: everything else, plain JSON.
    """

    benchmark: str
    text: str
    value: float | None = None
    limit: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def report(figures: Figures, *, source: str, save: bool) -> None:
    """Prints figures for people and as one line of JSON, and keeps them where asked to.

    Args:
        figures: what was found.
        source: ``miniature`` or ``real``.
        save: also write ``results/<benchmark>-<source>.json``.
    """
    whole: dict[str, Any] = {"benchmark": figures.benchmark, "source": source}
    verdict = ""
    if figures.value is not None and figures.limit is not None:
        within = figures.value <= figures.limit
        whole |= {"value": round(figures.value, 3), "limit": figures.limit, "within": within}
        verdict = f": {figures.value:.2f}, {'within' if within else 'MORE THAN'} the limit of {figures.limit}"
    whole |= {**figures.details, "machine": machine()}
    print(f"{figures.text}{verdict}")
    print(json.dumps(whole), flush=True)
    if save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{figures.benchmark}-{source}.json"
        path.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
