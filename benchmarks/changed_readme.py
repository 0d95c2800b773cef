"""Figure D: only the README changed, one variant: what that costs beyond the start of Dagster.

    python -m benchmarks.changed_readme [--real [--artifacts FOLDER]] [--state FOLDER] [--folder FOLDER] [--save]

The start of Dagster is a process that imports it, loads the definitions and opens the instance. What judges is wall
seconds, for it is somebody who waits.
"""

from __future__ import annotations

import sys

from benchmarks.common import Figures, cost_of_command
from benchmarks.no_change import prepared
from benchmarks.places import PACKAGE, Place, measured

LIMIT_SECONDS = 5.0
VARIANT = "baseline"
START = """
from vllm_wheels.core.settings import load
from vllm_wheels.defs import home
from vllm_wheels.definitions import defs
defs.resolve_asset_graph()
home.instance(load())
"""


def measure(place: Place) -> Figures:
    """Builds a variant, changes the template of its long description, builds again."""
    state = prepared(place, "readme")
    words = ("build", "--variant", VARIANT, "--no-verify", "--release", place.release)
    place.pipeline(state, *words)
    readme = place.folder / "readme.md"
    readme.write_text("# $distribution\n\nvLLM $release, another description.\n", "utf-8")
    changed = place.pipeline(state, *words, variables={"VLLM_WHEELS_WHEEL__README": str(readme)})
    if changed.compiled:
        message = "a compiler was started"
        raise RuntimeError(message)
    environment = {**place.environment(state), "PYTHONPATH": str(PACKAGE.parent)}
    argv = [sys.executable, "-c", START]
    start = cost_of_command(argv, environment=environment, log=state / "start.log", cwd=place.folder)
    beyond = changed.cost.wall - start.wall
    return Figures(
        benchmark="changed_readme",
        text=f"a new README took {changed.cost}, of which the start of Dagster is {start}; seconds beyond it",
        value=beyond,
        limit=LIMIT_SECONDS,
        details={
            "beyond_cpu_s": round(changed.cost.cpu - start.cpu, 1),
            "beyond_wall_s": round(beyond, 1),
            "changed": changed.cost.plain(),
            "start_of_dagster": start.plain(),
        },
    )


if __name__ == "__main__":
    measured(measure, __doc__ or "", light=True)
