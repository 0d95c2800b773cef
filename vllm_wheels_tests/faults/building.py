"""The faults of building: one variant of the miniature release, broken between two builds or in the middle of one."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.builders.compiler_cache import CACHE
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels_tests.faults.world import ended
from vllm_wheels_tests.fixtures.building import command, run

WORDS = ("build", "--variant", "baseline", "--python-version", "3.11", "--yes")
SECONDS = 600.0


@dataclass
class Workshop:
    """State and output folder of a finished build of one variant."""

    folder: Path
    chance: random.Random

    @property
    def state(self) -> Path:
        """State folder."""
        return self.folder / "state"

    @property
    def output(self) -> Path:
        """Output folder."""
        return self.folder / "wheels"

    def hashes(self) -> dict[str, str]:
        """The finished wheels."""
        return {path.name: sha256_of(path) for path in wheels_in(self.output)}

    def build(self, *before: str, **more: str) -> str:
        """One plain build; how it ended."""
        if before:
            done = subprocess.run(
                [*before, *command(*WORDS)], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        else:
            done = run(*WORDS, timeout=SECONDS, **more)
        return "built" if done.returncode == 0 else ended(done.returncode, done.stderr)

    def killed(self, number: int, seconds: float) -> str:
        """A build from an empty store that gets a signal after a while."""
        shutil.rmtree(self.state / "store")
        process = subprocess.Popen(command(*WORDS), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(seconds)
        process.send_signal(number)
        _, said = process.communicate(timeout=SECONDS)
        return ended(process.returncode, said) if process.returncode else "built"


@dataclass(frozen=True)
class BuildFault:
    """One thing that breaks; see ``publishing.Fault``."""

    what: str
    inject: Callable[[Workshop], str]


def _wheels(shop: Workshop) -> list[Path]:
    return [path for path in (shop.state / "store" / "wheel").rglob("*.whl") if path.is_file()]


def corrupted_store(shop: Workshop) -> str:
    for path in _wheels(shop):
        damaged = path.read_bytes()[:-9] + b"corrupted"
        path.unlink()  # other tests have the file as well
        path.write_bytes(damaged)
    for path in wheels_in(shop.output):
        path.unlink()
    return shop.build()


def lost_artifact(shop: Workshop) -> str:
    for path in _wheels(shop):
        path.unlink()
    return shop.build()


def corrupted_cache(shop: Workshop) -> str:
    cache = shop.state / CACHE
    own = cache.resolve()
    cache.unlink()
    shutil.copytree(own, cache)
    for path in cache.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50] + b"\0" * 50)
    shutil.rmtree(shop.state / "store")
    return shop.build()


def lost_database(shop: Workshop) -> str:
    shutil.rmtree(shop.state / "dagster")
    return shop.build()


def torn_database(shop: Workshop) -> str:
    for path in (shop.state / "dagster").rglob("*.db"):
        path.write_bytes(path.read_bytes()[:2000])
    said = shop.build()
    shutil.rmtree(shop.state / "dagster", ignore_errors=True)
    return said


def lost_output(shop: Workshop) -> str:
    shutil.rmtree(shop.output)
    return shop.build()


def read_only_output(shop: Workshop) -> str:
    for path in wheels_in(shop.output):
        path.unlink()
    return shop.build("bwrap", "--dev-bind", "/", "/", "--ro-bind", str(shop.output), str(shop.output))


def killed(shop: Workshop) -> str:
    return shop.killed(signal.SIGKILL, shop.chance.uniform(2, 15))


def terminated(shop: Workshop) -> str:
    return shop.killed(signal.SIGTERM, shop.chance.uniform(4, 10))


def poisoned(shop: Workshop) -> str:
    shutil.rmtree(shop.state / "store")
    return shop.build(CXXFLAGS="-DPOISON -O0", CFLAGS="-O0", LDFLAGS="-s", PYTHONHASHSEED="7", SOURCE_DATE_EPOCH="1")


BUILDING = (
    BuildFault("an entry of the store is corrupted", corrupted_store),
    BuildFault("a file of a store entry is lost", lost_artifact),
    BuildFault("entries of the compiler's cache are corrupted", corrupted_cache),
    BuildFault("Dagster's database is lost", lost_database),
    BuildFault("Dagster's database is torn", torn_database),
    BuildFault("the output folder is lost", lost_output),
    BuildFault("the output folder is read-only", read_only_output),
    BuildFault("kill -9 of a build at a random time (1)", killed),
    BuildFault("kill -9 of a build at a random time (2)", killed),
    BuildFault("kill of a build at a random time", terminated),
    BuildFault("poisoned CXXFLAGS, LDFLAGS and SOURCE_DATE_EPOCH", poisoned),
)
