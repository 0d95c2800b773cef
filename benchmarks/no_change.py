"""Figure C: nothing changed, the whole graph of one release and Python, verifications among them.

    python -m benchmarks.no_change [--real [--artifacts STATE_FOLDER]] [--state STATE_FOLDER] [--folder FOLDER] [--save]

Builds and verifies all variants, then does it again. What judges is wall seconds, for it is somebody who waits; on a
machine that does other work meanwhile they tell about that work as well. A variant that this machine's processor cannot
run comes to no verdict, and such a report is not kept: it is left out, and named in the figures.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import Figures
from benchmarks.places import Place, measured
from vllm_wheels.core.variants import variants
from vllm_wheels.core.verify.runs.processor import lacking

LIMIT_SECONDS = 6.0
STATE = "nothing"


def measure(place: Place) -> Figures:
    """Asks twice for everything."""
    state = prepared(place, STATE)
    left_out = [each.name for each in variants().values() if lacking(each.floor)]
    chosen = [word for name in variants() if name not in left_out for word in ("--variant", name)]
    words = ("build", *chosen, "--release", place.release)
    first, again = place.pipeline(state, *words), place.pipeline(state, *words)
    if again.compiled:
        message = f"{again.compiled} variants were compiled again"
        raise RuntimeError(message)
    without = f" without {', '.join(left_out)}" if left_out else ""
    return Figures(
        benchmark="no_change",
        text=f"with nothing changed the whole graph{without} took {again.cost}, and started no compiler",
        value=again.cost.wall,
        limit=LIMIT_SECONDS,
        details={
            **again.cost.plain(),
            "compilers_started": again.compiled,
            "left_out": left_out,
            "peak_megabytes": round(again.cost.peak_megabytes),
            "before": first.cost.plain(),
        },
    )


def prepared(place: Place, name: str) -> Path:
    """A state to go on from: a copy of an earlier run's, or a new one."""
    return place.copy(place.earlier_state, name) if place.earlier_state else place.state(name)


if __name__ == "__main__":
    measured(measure, __doc__ or "", light=True)
