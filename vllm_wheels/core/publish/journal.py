"""What this installation did to an index, written down before and after each act; survives being killed at any moment.

The index's own state is the truth about what is there. The journal tells what the index cannot: that a file is on its
way and may show up, that a file was accepted, and that a file which is gone was there.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from vllm_wheels.core.errors import StoreBusyError
from vllm_wheels.core.host.files import own_folder

Act = Literal["sending", "accepted", "failed", "listed"]
LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Journal:
    """The journal of one repository: a line of JSON per act in ``folder``."""

    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "journal.jsonl"

    def write(self, act: Act, file: str, sha256: str, **more: Any) -> None:
        """Appends an act and syncs it to disk before anything else happens."""
        own_folder(self.folder)
        line = json.dumps({"at": time.time(), "act": act, "file": file, "sha256": sha256, **more}, sort_keys=True)
        # A new line first: the last one may have been cut off when the machine died.
        gap = "\n" if self.path.exists() and not self.path.read_bytes().endswith(b"\n") else ""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(f"{gap}{line}\n")
            stream.flush()
            os.fsync(stream.fileno())

    def acts(self) -> Iterator[dict[str, Any]]:
        """All acts in order; a line that was cut off is skipped."""
        if not self.path.is_file():
            return
        for line in self.path.read_text("utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def last(self, file: str, sha256: str) -> dict[str, Any] | None:
        """The last act that concerns exactly these bytes."""
        found = [act for act in self.acts() if (act["file"], act["sha256"]) == (file, sha256)]
        return found[-1] if found else None

    def listed(self) -> frozenset[str]:
        """Names of files that the index has shown."""
        return frozenset(act["file"] for act in self.acts() if act["act"] == "listed")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes of this installation from publishing to the same index."""
        own_folder(self.folder)
        try:
            with FileLock(self.folder / "lock", timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            what = "another process is publishing to this repository"
            remedy = "wait until it is done"
            raise StoreBusyError(what, why=f"it holds {self.folder / 'lock'}", remedy=remedy) from error
