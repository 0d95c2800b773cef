"""Shows a build while it runs: one live picture on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vllm_wheels.commands.options import LOUD, OUT, VERBOSITY, is_interactive, say
from vllm_wheels.commands.typed import as_typed
from vllm_wheels.core.operations.progress import Cell, Progress, watching
from vllm_wheels.core.texts import shown as cleaned

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vllm_wheels.core.operations.progress import Key

REFRESHES = 4
"""Pictures a second."""

PULSE_SECONDS = 30.0
"""How often a log is told how far the build is."""

STYLES = {"waiting": "dim", "working": "bold cyan", "done": "green", "kept": "green"}
WORDS = {"waiting": "-", "working": "...", "done": "made", "kept": "kept"}
MINUTE, HOUR = 60, 3600


@contextmanager
def shown(
    estimates: Mapping[Key, float], *, assumed: Mapping[Key, float] | None = None
) -> Iterator[Callable[[str], None]]:
    """Shows a build while the context lasts; gives what is to be told each milestone.

    On a terminal that is one picture; elsewhere milestones, and every half minute a line on how far the build is. With
    --verbose it is every line of the compiler, with --quiet nothing.
    """
    progress = Progress(estimates=estimates, assumed=assumed or {})
    with watching(progress):
        if VERBOSITY.verbose:
            yield say
        elif VERBOSITY.quiet:
            with _kept_streams() as console:
                yield _printing(console, lambda line: line.startswith(LOUD))
        elif is_interactive() and not OUT.is_dumb_terminal:
            with _kept_streams() as console, _live(progress, console) as tell:
                yield tell
        else:
            with _kept_streams() as console, _pulse(progress, tell := _printing(console)):
                yield tell


def _printing(console: Console, wanted: Callable[[str], bool] = lambda _: True) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if wanted(line):
            console.print(as_typed(line), markup=False, soft_wrap=True)

    return tell


@contextmanager
def _pulse(progress: Progress, tell: Callable[[str], None]) -> Iterator[None]:
    """Tells every half minute how far the build is."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(PULSE_SECONDS):
            if progress.current:
                tell(pulse(progress))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def pulse(progress: Progress) -> str:
    """What is being made, the compiler's counter, and the times, on one line."""
    current, counter = progress.current, progress.counter
    making = f"{current[0].artifact} {current[0].target.variant or ''}".rstrip() if current else ""
    done = f" [{counter[0]}/{counter[1]}]" if counter else ""
    return f"{making}{done}: {summary(progress)}"


def summary(progress: Progress) -> str:
    """Elapsed and remaining time and the hit rate of the compiler's cache, on one line."""
    hits, misses = progress.cache_now()
    asked = hits + misses
    cache = f"; compiler cache {100 * hits // asked} % ({hits} of {asked})" if asked else ""
    return f"elapsed {clock(progress.elapsed())}, about {clock(progress.remaining())} left{cache}"


def picture(progress: Progress, *, current: str) -> RenderableType:
    """The whole display, with what is being done at the moment."""
    table = Table("variant", *progress.stages(), "spent", "left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    targets = progress.targets()
    several = len({target.python for target in targets}) > 1
    for target in targets:
        name = f"{target.variant} {target.python}" if several else str(target.variant)
        cells = [_cell(progress.cell(stage, target)) for stage in progress.stages()]
        left = progress.remaining(target)
        times = (clock(progress.spent(target)), f"~{clock(left)}" if left else "-")
        table.add_row(name, *cells, *times)
    for column in table.columns:
        column.no_wrap = True
    line = Text(current, overflow="ellipsis", no_wrap=True, style="dim")
    return Group(table, line, Text(summary(progress), overflow="ellipsis", no_wrap=True))


def clock(seconds: float) -> str:
    """A time as people read it: 0:42, 12:05, 1:02:03."""
    whole = round(seconds)
    minutes, rest = divmod(whole, MINUTE)
    if whole < HOUR:
        return f"{minutes}:{rest:02}"
    return f"{minutes // MINUTE}:{minutes % MINUTE:02}:{rest:02}"


def _cell(cell: Cell) -> Text:
    text = WORDS[cell.state]
    if cell.counter:
        done, whole = cell.counter
        text = f"[{done}/{whole}] {100 * done // whole} %"
    return Text(text, STYLES[cell.state])


@contextmanager
def _live(progress: Progress, console: Console) -> Iterator[Callable[[str], None]]:
    current = [""]

    def render() -> RenderableType:
        # The standard streams, which rich would ask, are not the terminal at the moment.
        console.size = os.get_terminal_size(console.file.fileno())
        return picture(progress, current=current[0])

    def tell(line: str) -> None:
        making = progress.current
        if making and line in {step.title for step in making[0].steps}:
            current[0] = line
        else:
            live.console.print(cleaned(line), markup=False, soft_wrap=True)

    live = Live(
        console=console,
        get_renderable=render,
        refresh_per_second=REFRESHES,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        yield tell
        current[0] = ""


@contextmanager
def _kept_streams() -> Iterator[Console]:
    """Keeps standard output to ourselves: what the compiler prints goes to Dagster's log of the step, nowhere else."""
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    shown = kept[1] if OUT.stderr else kept[0]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        with open(shown, "w", encoding=sys.stdout.encoding, errors="replace", closefd=False) as own:
            yield Console(file=own, force_terminal=os.isatty(shown), highlight=False)
    finally:
        for stream in streams:
            stream.flush()
        for number, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        os.close(nowhere)
