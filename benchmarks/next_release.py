"""Figure F: the next release with the same oneDNN, all variants, against its own plain build.

    python -m benchmarks.next_release [--real [--artifacts STATE_FOLDER]] [--folder FOLDER] [--save]

Before, one variant of the release before it is built, which compiles oneDNN. In a run that built the five variants
already, that happens over a copy of their compiler cache, from which everything that it does not use is removed then:
what is left is what the release before leaves behind.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from benchmarks import five_variants
from benchmarks.common import Figures
from benchmarks.places import Place, linked, measured, say
from vllm_wheels.core.engine.builder import PLACE, Command, Mount

LIMIT = 0.4
BEFORE = "baseline"
CCACHE_SECONDS = 600.0


def measure(place: Place) -> Figures:
    """Builds plainly, a variant of the earlier release, and all variants of the later one."""
    plain = place.plain()
    state = place.state("next")
    began = time.time()
    linked(place.folder / five_variants.STATE / "ccache", state / "ccache")
    before = place.pipeline(state, "build", "--variant", BEFORE, "--no-verify", "--release", place.earlier)
    say(f"{BEFORE} of {place.earlier}: {before.cost}")
    evict(place, state, time.time() - began)
    first = place.pipeline(state, "build", "--variant", BEFORE, "--no-verify", "--release", place.release)
    rest = place.pipeline(state, "build", "--variant", "all", "--no-verify", "--release", place.release)
    whole = first.cost + rest.cost
    return Figures(
        benchmark="next_release",
        text=f"five variants of {place.release} after {place.earlier} took {whole}; its plain build took {plain}",
        value=whole.cpu / plain.cpu,
        limit=LIMIT,
        details={
            **whole.against(plain),
            "earlier": place.earlier,
            "release": place.release,
            "five_variants": whole.plain(),
            "plain": plain.plain(),
            "first_variant": {"variant": BEFORE, **first.cost.plain(), **first.cost.against(plain)},
            "ccache": place.compiled(state),
        },
    )


def evict(place: Place, state: Path, seconds: float) -> None:
    """Removes from the compiler cache what was used last longer ago than so many seconds."""
    cache = Mount(source=state / "ccache", place=f"{PLACE}/ccache", writable=True)
    argv = ["ccache", f"--evict-older-than={math.ceil(seconds)}s"]
    command = Command(argv=argv, env={"CCACHE_DIR": cache.place}, cwd="/", mounts=[cache])
    finished = place.builds(state).builder.run(command, timeout_seconds=CCACHE_SECONDS)
    if finished.status:
        message = f"ccache ended with status {finished.status}: {finished.tail}"
        raise RuntimeError(message)


if __name__ == "__main__":
    measured(measure, __doc__ or "")
