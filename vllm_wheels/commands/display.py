"""Shows a build while it runs: one live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vllm_wheels.commands.options import OUT, is_interactive, say
from vllm_wheels.core.operations.progress import Cell, Progress, watching
from vllm_wheels.core.texts import shown as cleaned

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vllm_wheels.core.operations.progress import Key

REFRESHES = 4
"""Pictures a second."""

PULSE_SECONDS = 30.0
"""How often plain lines tell how far the compiler is."""

STYLES = {"waiting": "dim", "working": "bold cyan", "done": "green", "kept": "green"}
WORDS = {"waiting": "-", "working": "...", "done": "made", "kept": "kept"}
MINUTE, HOUR = 60, 3600


@contextmanager
def shown(estimates: Mapping[Key, float]) -> Iterator[Callable[[str], None]]:
    """Shows a build while the context lasts; gives what is to be told each milestone."""
    if is_interactive() and not OUT.is_dumb_terminal:
        progress = Progress(estimates=estimates)
        with _terminal() as terminal, _live(progress, terminal) as tell, watching(progress):
            yield tell
    else:
        with watching(Pulse(estimates=estimates, tell=say)):
            yield say


@dataclass(kw_only=True)
class Pulse(Progress):
    """Follows a build and prints, between the lines of the compiler, how far it is."""

    tell: Callable[[str], None]
    last: float = 0.0

    def line(self, text: str) -> None:
        """Reads the compiler's counter, and prints a line from time to time."""
        super().line(text)
        if self.counter and self.now() - max(self.last, self.began) >= PULSE_SECONDS:
            self.last = self.now()
            self.tell(summary(self))


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
def _live(progress: Progress, terminal: int) -> Iterator[Callable[[str], None]]:
    current = [""]

    def render() -> RenderableType:
        # The standard streams, which rich would ask, are not the terminal at the moment.
        console.size = os.get_terminal_size(terminal)
        return picture(progress, current=current[0])

    def tell(line: str) -> None:
        making = progress.current
        if making and line in {step.title for step in making[0].steps}:
            current[0] = line
        else:
            live.console.print(cleaned(line), markup=False, soft_wrap=True)

    with open(terminal, "w", encoding=sys.stdout.encoding, errors="replace", closefd=False) as stream:
        console = Console(file=stream, force_terminal=True, highlight=False)
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
def _terminal() -> Iterator[int]:
    """Keeps the terminal to ourselves: what the compiler prints goes to Dagster's log of the step, and nowhere else."""
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield kept[0]
    finally:
        for stream in streams:
            stream.flush()
        for number, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        os.close(nowhere)
