"""Figure A: five variants on one Python, cold, against one plain ``setup.py bdist_wheel`` of the unpatched source.

    python -m benchmarks.five_variants [--real [--pieces STATE_FOLDER]] [--folder FOLDER] [--save]

Cold means: no compiled piece and an empty compiler cache. Both sides compile in the same place with as many jobs; the
plain side has upstream's own defaults, debug information among them, and none of the naming, stripping and repairing.
"""

from __future__ import annotations

from benchmarks.common import Figures
from benchmarks.places import Place, measured

LIMIT = 1.0
STATE = "five"


def measure(place: Place) -> Figures:
    """Builds plainly, then all variants."""
    plain = place.plain()
    state = place.state(STATE)
    five = place.pipeline(state, "build", "--variant", "all", "--no-verify", "--release", place.release).cost
    return Figures(
        benchmark="five_variants",
        text=f"five variants took {five}; one plain build took {plain}",
        value=five.cpu / plain.cpu,
        limit=LIMIT,
        details={
            **five.against(plain),
            "five_variants": five.plain(),
            "plain": plain.plain(),
            "ccache": place.compiled(state),
        },
    )


if __name__ == "__main__":
    measured(measure, __doc__ or "")
