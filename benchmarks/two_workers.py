"""Five variants by two workers of one core each, against one worker of one core, both cold.

    python -m benchmarks.two_workers [--folder FOLDER] [--save]

Each worker is a process of Celery on a core and a disk of its own; database, queue, bucket and the storage of the
compiler cache are real servers on loopback (the bucket is moto's, the storage Redis). What is measured is the run, from
its start to its end, by the clock. The servers and the run itself share the cores with the workers, so on two cores the
ratio is worse than on more.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.common import Figures
from benchmarks.places import ON_HOST, PYTHON, Place, measured
from vllm_wheels.core import settings as configuration
from vllm_wheels.core.variants import variants
from vllm_wheels.defs import home, partitions
from vllm_wheels_tests.fixtures import servers, team

LIMIT = 0.6
SECONDS = 3600.0


def measure(place: Place) -> Figures:
    """Builds all variants with one worker, then with two."""
    alone, together = timed(place, 1), timed(place, 2)
    return Figures(
        benchmark="two_workers",
        text=f"five variants took {together:.0f} s on two workers of one core, {alone:.0f} s on one",
        value=together / alone,
        limit=LIMIT,
        details={"one_s": round(alone, 1), "two_s": round(together, 1)},
    )


def timed(place: Place, count: int) -> float:
    """Seconds that so many workers take."""
    folder = place.folder / f"workers-{count}"
    folder.mkdir()
    partition = f"{PYTHON}|{place.release}"
    with ExitStack() as stack:
        shared = stack.enter_context(team.servers_of(folder))
        cache = stack.enter_context(servers.redis(folder))
        # On the host, for a container would not keep to the core of its worker.
        own = {**ON_HOST, "VLLM_WHEELS_STATE_FOLDER": str(folder / "main")}
        variables = {**place.variables, **shared.variables, **own, "VLLM_WHEELS_BUILDER__CACHE_REMOTE": cache}
        os.environ.update(variables)
        partitions.register(home.instance(configuration.load()), place.release, PYTHON)
        for core in range(count):
            bound = ("taskset", "-c", str(core))
            stack.enter_context(team.worker(folder, f"worker-{core}", before=bound, variables=variables))
        began = time.monotonic()
        selection = ",".join(f"*wheel/{name}" for name in variants())
        run = stack.enter_context(team.materializing(folder, selection, partition, variables=variables))
        if status := run.wait(SECONDS):
            sys.exit(f"status {status}; the end of the log:\n{Path(folder, 'run.log').read_text()[-3000:]}")
        return time.monotonic() - began


if __name__ == "__main__":
    measured(measure, __doc__ or "")
