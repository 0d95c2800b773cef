"""Draws a transcript of a terminal: ``python -m benchmarks.terminal_picture TRANSCRIPT docs/images/terminal.svg``.

The transcript is what a command printed; a line that begins with ``$ `` is what was typed.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 118
PROMPT = "$ "


def picture(transcript: str) -> str:
    """The SVG of a transcript; fonts come from the reader's own machine."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), highlight=False)
    for line in transcript.splitlines():
        style = "bold" if line.startswith(PROMPT) else "yellow" if line.startswith("NOTICE") else ""
        console.print(Text(line, style), overflow="ellipsis", no_wrap=True)
    drawn = console.export_svg(title="vllm-wheels", unique_id="terminal")
    start, end = drawn.find("@font-face"), drawn.find(".terminal-matrix")
    return drawn[:start] + drawn[end:].replace("Fira Code", "ui-monospace") if 0 < start < end else drawn


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(picture(Path(sys.argv[1]).read_text("utf-8")), "utf-8")
