"""Five variants on a machine whose remote store is warm, against the machine that made them, cold.

    python -m benchmarks.warm_remote [--real [--artifacts STATE_FOLDER]] [--folder FOLDER] [--save]

The bucket is moto's server on loopback, so what is measured is what the two machines do, and not a network. The first
one pushes what it makes; the second one begins with nothing and reads.
"""

from __future__ import annotations

import json

from benchmarks.common import Figures
from benchmarks.places import Place, measured
from vllm_wheels.core.host.signing import generate
from vllm_wheels_tests.fixtures import servers

LIMIT = 0.1


def measure(place: Place) -> Figures:
    """Builds on one machine, then on another."""
    key = generate(place.folder / "office.pem")
    with servers.s3(place.folder) as url:
        shared = {**servers.KEYS, "VLLM_WHEELS_STORE__TRUSTED_KEYS": json.dumps({key.name: key.public})}
        maker = {
            **shared,
            "VLLM_WHEELS_STORE__SIGNING_KEY": str(place.folder / "office.pem"),
            "VLLM_WHEELS_STORE__REMOTES": json.dumps({"bucket": {"url": url, "push": True}}),
        }
        reader = {**shared, "VLLM_WHEELS_STORE__REMOTES": json.dumps({"bucket": {"url": url}})}
        words = ("build", "--variant", "all", "--no-verify", "--release", place.release)
        cold = place.pipeline(place.state("maker"), *words, variables=maker)
        warm = place.pipeline(place.state("reader"), *words, variables=reader)
    return Figures(
        benchmark="warm_remote",
        text=f"five variants took {warm.cost} from a warm remote store; making and pushing them took {cold.cost}",
        value=warm.cost.cpu / cold.cost.cpu,
        limit=LIMIT,
        details={**warm.cost.against(cold.cost), "compiled": warm.compiled},
    )


if __name__ == "__main__":
    measured(measure, __doc__ or "")
