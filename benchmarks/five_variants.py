"""Figure A: five variants on one Python, cold, against one plain ``setup.py bdist_wheel`` of the unpatched source.

    python -m benchmarks.five_variants [--real [--artifacts STATE_FOLDER]] [--folder FOLDER] [--save]

Cold means: no compiled artifact and an empty compiler cache. Both sides compile in the same place with as many jobs;
the plain side has upstream's own defaults, with debug information, and none of the naming, stripping and repairing.
"""

from __future__ import annotations

from benchmarks.common import Cost, Figures
from benchmarks.places import Place, measured

LIMIT = 1.0
STATE = "five"


def measure(place: Place) -> Figures:
    """Builds plainly, then all variants."""
    plain, five = place.plain(), all_variants(place)
    return Figures(
        benchmark="five_variants",
        text=f"five variants took {five}; one plain build took {plain}",
        value=five.cpu / plain.cpu,
        limit=LIMIT,
        details={
            **five.against(plain),
            "five_variants": five.plain(),
            "plain": plain.plain(),
            "peak_megabytes": round(five.peak_megabytes),
            "ccache": place.compiled(place.folder / STATE),
        },
    )


def all_variants(place: Place) -> Cost:
    """Cost of all variants, cold; measured once in a run. They are left in the place's folder ``STATE``."""
    if STATE not in place.measured:
        state = place.state(STATE)
        words = ("build", "--variant", "all", "--no-verify", "--release", place.release)
        place.measured[STATE] = place.pipeline(state, *words).cost
    return place.measured[STATE]


if __name__ == "__main__":
    measured(measure, __doc__ or "")
