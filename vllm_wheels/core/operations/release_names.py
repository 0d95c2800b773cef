"""Notes the registered releases for the tab key, which cannot wait the seconds that Dagster, who knows them, takes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vllm_wheels.core.host.files import write_atomically

FILE = "releases.txt"


def note(home: Path, names: Iterable[str]) -> None:
    """Caches the names of all registered releases in a file of DAGSTER_HOME, where that can be written."""
    found = list(names)
    if noted(home) == found:
        return
    with suppress(OSError):
        write_atomically(home / FILE, "".join(f"{name}\n" for name in found))


def noted(home: Path) -> list[str]:
    """The releases as Dagster named them last; none where it was never asked."""
    try:
        return (home / FILE).read_text("utf-8").split()
    except OSError:
        return []
