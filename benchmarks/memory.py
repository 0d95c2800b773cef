"""Figure H: peak memory of the pipeline's own process, without compilers, while it builds a variant.

    python -m benchmarks.memory [--real [--artifacts STATE_FOLDER]] [--state STATE_FOLDER] [--folder FOLDER] [--save]

Read from the process itself (``VmHWM``); what it starts is not counted.
"""

from __future__ import annotations

from benchmarks.common import Figures
from benchmarks.no_change import prepared
from benchmarks.places import Place, measured

LIMIT_MEGABYTES = 400.0


def measure(place: Place) -> Figures:
    """Builds, names, repairs and verifies one variant."""
    state = prepared(place, "memory")
    run = place.pipeline(state, "build", "--variant", "baseline", "--release", place.release)
    peak = run.cost.peak_megabytes
    return Figures(
        benchmark="memory",
        text=f"the pipeline's own process took {peak:.0f} MB at most, while {run.compiled} variant was compiled; MB",
        value=peak,
        limit=LIMIT_MEGABYTES,
        details={"compiled": run.compiled, **run.cost.plain()},
    )


if __name__ == "__main__":
    measured(measure, __doc__ or "", light=True)
