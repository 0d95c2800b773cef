"""Figure B: five variants on four Pythons, against the old loop of one plain build for each variant and Python.

    python -m benchmarks.matrix [--real [--artifacts STATE_FOLDER]] [--folder FOLDER] [--save]

The old loop did the same plain build for each variant, so one is measured for each Python and counts five times. A
Python that compilers do not have here costs what the others cost on average. Of the real release one Python is built,
plainly and by the pipeline; the others are extrapolated: for the old loop as many plain builds, for the pipeline a run
that finds everything compiled. What was extrapolated is in the figures.
"""

from __future__ import annotations

from functools import reduce
from operator import add

from benchmarks import five_variants
from benchmarks.common import Cost, Figures
from benchmarks.places import PYTHON, Place, measured
from vllm_wheels.core.errors import UnsupportedPythonError

LIMIT = 0.06
VARIANTS = 5
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def measure(place: Place) -> Figures:
    """Builds the whole matrix, and plainly."""
    real = place.source == "real"
    here = [PYTHON] if real else [python for python in PYTHONS if _is_here(place, python)]
    plains = {python: place.plain(python=python) for python in here}
    together = reduce(add, plains.values())
    builds = VARIANTS * len(PYTHONS)
    loop = Cost(wall=together.wall / len(plains), cpu=together.cpu / len(plains)).times(builds)
    ours = {PYTHON: five_variants.all_variants(place)}
    state = place.folder / five_variants.STATE
    words = ("build", "--variant", "all", "--no-verify", "--release", place.release, "--python-version")
    for python in PYTHONS:
        if python != PYTHON:
            ours[python] = place.pipeline(state, *words, PYTHON if real else python).cost
    whole = reduce(add, ours.values())
    return Figures(
        benchmark="matrix",
        text=f"{VARIANTS} variants on {len(PYTHONS)} Pythons took {whole}; the old loop takes {loop}",
        value=whole.cpu / loop.cpu,
        limit=LIMIT,
        details={
            **whole.against(loop),
            "pipeline": {python: cost.plain() for python, cost in ours.items()},
            "pipeline_extrapolated_pythons": [python for python in PYTHONS if real and python != PYTHON],
            "plain_measured": {python: cost.plain() for python, cost in plains.items()},
            "plain_builds_of_the_loop": builds,
            "plain_builds_extrapolated": builds - len(plains),
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
