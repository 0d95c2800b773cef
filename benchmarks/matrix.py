"""Figure B: five variants on four Pythons, against the old loop of one plain build for each variant and Python.

    python -m benchmarks.matrix [--real [--pieces STATE_FOLDER]] [--folder FOLDER] [--save]

The old loop did the same plain build for each variant, so one is measured for each Python and counts five times. A
Python that compilers do not have here costs what the others cost on average, which is said. For the real release the
pipeline's side is all that is measured on each Python; a plain build is measured once and extrapolated to twenty.
"""

from __future__ import annotations

from functools import reduce
from operator import add

from benchmarks.common import Cost, Figures
from benchmarks.places import PYTHON, Place, measured
from vllm_wheels.core.errors import UnsupportedPythonError

LIMIT = 0.06
VARIANTS = 5
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def measure(place: Place) -> Figures:
    """Builds the whole matrix, and plainly."""
    state = place.state("matrix")
    sides = [python for python in PYTHONS if _is_here(place, python)]
    plains = {python: place.plain(python=python) for python in ([PYTHON] if place.source == "real" else sides)}
    mean = reduce(add, plains.values())
    missing = len(PYTHONS) - len(plains)
    scale = 1 + missing / len(plains)
    loop = Cost(wall=mean.wall * scale, cpu=mean.cpu * scale).times(VARIANTS)
    words = ("build", "--variant", "all", "--no-verify", "--release", place.release, "--python-version")
    ours = {python: place.pipeline(state, *words, python).cost for python in PYTHONS}
    whole = reduce(add, ours.values())
    return Figures(
        benchmark="matrix",
        text=f"{VARIANTS} variants on {len(PYTHONS)} Pythons took {whole}; the old loop takes {loop}",
        value=whole.cpu / loop.cpu,
        limit=LIMIT,
        details={
            **whole.against(loop),
            "pipeline": {python: cost.plain() for python, cost in ours.items()},
            "plain_measured": {python: cost.plain() for python, cost in plains.items()},
            "plain_builds_of_the_loop": VARIANTS * len(PYTHONS),
            "plain_builds_extrapolated": VARIANTS * len(PYTHONS) - len(plains),
        },
    )


def _is_here(place: Place, python: str) -> bool:
    try:
        place.builder().python(python)
    except UnsupportedPythonError:
        return False
    return True


if __name__ == "__main__":
    measured(measure, __doc__ or "")
