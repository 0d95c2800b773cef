"""Figure C: nothing changed, the whole graph of one release and Python, verifications among them.

    python -m benchmarks.no_change [--real [--pieces STATE_FOLDER]] [--state STATE_FOLDER] [--folder FOLDER] [--save]

Builds and verifies all variants, then does it again. What judges is wall seconds, for it is somebody who waits; on a
machine that does other work meanwhile they tell about that work as well.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import Figures
from benchmarks.places import Place, measured
from vllm_wheels.core.errors import CannotVerifyError

LIMIT_SECONDS = 10.0
STATE = "nothing"
ACCEPTED = (0, CannotVerifyError.exit_code)
"""A machine whose CPU lacks AMX cannot try that variant's wheel, which is no conviction but no pass either."""


def measure(place: Place) -> Figures:
    """Asks twice for everything."""
    state = prepared(place, STATE)
    words = ("build", "--variant", "all", "--release", place.release)
    first = place.pipeline(state, *words, accepted=ACCEPTED)
    again = place.pipeline(state, *words, accepted=ACCEPTED)
    if again.compiled:
        message = f"{again.compiled} variants were compiled again"
        raise RuntimeError(message)
    return Figures(
        benchmark="no_change",
        text=f"with nothing changed the whole graph took {again.cost}, and started no compiler",
        value=again.cost.wall,
        limit=LIMIT_SECONDS,
        details={
            **again.cost.plain(),
            "compilers_started": again.compiled,
            "peak_megabytes": round(again.cost.peak_megabytes),
            "before": first.cost.plain(),
        },
    )


def prepared(place: Place, name: str) -> Path:
    """A state to go on from: a copy of an earlier run's, or a new one."""
    return place.copy(place.earlier_state, name) if place.earlier_state else place.state(name)


if __name__ == "__main__":
    measured(measure, __doc__ or "", light=True)
