"""What the sandbox costs: one variant built and tried on this host, confined and not, by turns.

    python -m benchmarks.confinement [--folder FOLDER] [--save]

Each round builds a variant of the miniature release from nothing, and verifies the wheel with all its runs: once with
foreign code in bubblewrap, as by default, and once with ``builder.unguarded``. Medians by the clock are compared: the
kernel does not count what ran behind bubblewrap's border among the processor's time of who started it.
"""

from __future__ import annotations

from statistics import median

from benchmarks.common import Cost, Figures
from benchmarks.places import Place, measured

ROUNDS = 3
VARIANT = "baseline"
ARMS = {"confined": "false", "unguarded": "true"}
PARTS = {"build": ("--no-verify",), "trial": ()}
"""Parts of a round with what they add to the command; the second one finds the wheel of the first."""


def measure(place: Place) -> Figures:
    """Builds and verifies by turns, and compares medians."""
    costs: dict[tuple[str, str], list[Cost]] = {(part, arm): [] for part in PARTS for arm in ARMS}
    for number in range(ROUNDS):
        for arm, unguarded in ARMS.items():
            state = place.state(f"{arm}-{number}")
            for part, more in PARTS.items():
                words = ("build", "--variant", VARIANT, "--release", place.release, "--yes", *more)
                done = place.pipeline(state, *words, variables={"VLLM_WHEELS_BUILDER__UNGUARDED": unguarded})
                costs[part, arm].append(done.cost)
    details = {f"{part}_{arm}": _middle(each) for (part, arm), each in costs.items()}
    seconds = {part: _beyond(details, part) for part in PARTS}
    text = ", ".join(f"{part} {each:+.1f} s" for part, each in seconds.items())
    ratio = sum(details[f"{part}_confined"]["wall_s"] for part in PARTS) / sum(
        details[f"{part}_unguarded"]["wall_s"] for part in PARTS
    )
    return Figures(benchmark="confinement", text=f"the sandbox costs {text}", value=ratio, limit=1.1, details=details)


def _middle(costs: list[Cost]) -> dict[str, float]:
    return Cost(wall=median(each.wall for each in costs), cpu=median(each.cpu for each in costs)).plain()


def _beyond(details: dict[str, dict[str, float]], part: str) -> float:
    return details[f"{part}_confined"]["wall_s"] - details[f"{part}_unguarded"]["wall_s"]


if __name__ == "__main__":
    measured(measure, __doc__ or "", light=True)
