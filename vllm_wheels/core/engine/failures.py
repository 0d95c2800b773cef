"""What could not be made, by the key that it would have had, so that nobody tries the same again in vain."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_wheels.core.errors import (
    CannotVerifyError,
    CompilerKilledError,
    EnvironmentResolutionError,
    FailedBeforeError,
    MachineError,
    NetworkError,
    StepTimeoutError,
    StoreBusyError,
    VllmWheelsError,
)
from vllm_wheels.core.host.files import write_atomically

if TYPE_CHECKING:
    from vllm_wheels.core.target import Target

PASSING = (
    CannotVerifyError,
    CompilerKilledError,
    EnvironmentResolutionError,
    MachineError,
    NetworkError,
    StepTimeoutError,
    StoreBusyError,
)
"""Errors of this machine or its network, which the same inputs need not meet again."""

FIRST_PAUSE_SECONDS = 3600.0
LONGEST_PAUSE_SECONDS = 7 * 24 * 3600.0
"""After each failure in a row that may pass, what runs by itself waits twice as long, and at most that."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One artifact that could not be made.

    Attributes:
        key: that it would have had; None where not even its plan could be drawn up.
        first: when it first failed with this key, in seconds since the epoch.
        last: when it last did.
        attempts: how often it did, in a row.
        passing: whether the machine or the network was to blame.
        convicted: whether it was made and judged; the store has it then, and the verdict stays.
    """

    kind: str
    partition: str
    variant: str | None
    key: str | None
    what: str
    why: str
    remedy: str
    first: float
    last: float
    attempts: int
    passing: bool
    convicted: bool = False

    @property
    def due(self) -> float | None:
        """From when on it is tried again by itself; None for never, while no input moves."""
        pause = FIRST_PAUSE_SECONDS * 2.0 ** (self.attempts - 1)
        return self.last + min(pause, LONGEST_PAUSE_SECONDS) if self.passing else None

    def stands(self, now: float) -> bool:
        """Whether whatever runs by itself leaves it alone."""
        return self.due is None or now < self.due

    @property
    def error(self) -> FailedBeforeError:
        """What is said in place of trying it again."""
        name = " ".join(part for part in (self.kind, self.variant, self.partition) if part)
        when = datetime.fromtimestamp(self.last).astimezone().strftime("%Y-%m-%d %H:%M")
        what = f"{name} failed before, and nothing that it is made from has changed"
        remedy = f"{self.remedy}; to try the same again: --retry (web UI: build_options: {{config: {{retry: true}}}})"
        return FailedBeforeError(what, why=f"{when}: {self.what} ({self.why})", remedy=remedy)


@dataclass(frozen=True)
class Failures:
    """The newest failure of each artifact of a target, kept until it is made."""

    folder: Path

    def find(self, kind: str, target: Target) -> Failure | None:
        """The failure of an artifact; None where the last attempt went well, or there was none."""
        try:
            return Failure(**json.loads(self._path(kind, target).read_text("utf-8")))
        except FileNotFoundError:
            return None

    def all(self) -> Iterator[Failure]:
        """Every failure."""
        for path in sorted(self.folder.glob("*.json")):
            yield Failure(**json.loads(path.read_text("utf-8")))

    def of(self, partition: str) -> Iterator[Failure]:
        """The failures of a release on one Python."""
        return (failure for failure in self.all() if failure.partition == partition)

    def note(
        self, kind: str, target: Target, key: str | None, error: VllmWheelsError, *, convicted: bool = False
    ) -> None:
        """Remembers that an artifact could not be made, or was ``convicted``."""
        before, now = self.find(kind, target), time.time()
        again = before is not None and before.key == key
        failure = Failure(
            kind=kind,
            partition=target.partition,
            variant=target.variant,
            key=key,
            what=error.what,
            why=error.why,
            remedy=error.remedy,
            first=before.first if before and again else now,
            last=now,
            attempts=before.attempts + 1 if before and again else 1,
            passing=isinstance(error, PASSING),
            convicted=convicted,
        )
        write_atomically(self._path(kind, target), json.dumps(asdict(failure), indent=1))

    def forget(self, kind: str, target: Target, key: str) -> None:
        """Remembers that an artifact is there, which says nothing against its conviction."""
        failure = self.find(kind, target)
        if failure and not (failure.convicted and failure.key == key):
            self._path(kind, target).unlink(missing_ok=True)

    def _path(self, kind: str, target: Target) -> Path:
        return self.folder / f"{kind}-{target.variant or 'shared'}-{target.python}-{target.release}.json"
