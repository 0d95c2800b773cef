"""How this program was called, so that what it tells people to type works for them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import cache

from vllm_wheels.commands.entries import COMMANDS

PROGRAM = "vllm-wheels"
VARIABLE = "_VLLM_WHEELS_TYPED"
"""In which ``./run`` says how it was called itself."""


@cache
def program() -> str:
    """What the user typed in place of ``vllm-wheels``."""
    called, given = os.environ.get(VARIABLE), sys.argv[0]
    if called:
        return called
    if os.path.basename(given) != PROGRAM or shutil.which(PROGRAM) == os.path.abspath(given):  # noqa: PTH119, PTH100
        return PROGRAM
    return given


def as_typed(text: str) -> str:
    """A text whose commands begin as the user's did."""
    return _commands().sub(lambda _: program(), text)


@cache
def _commands() -> re.Pattern[str]:
    """The program's name where one of its subcommands follows."""
    return re.compile(rf"(?<![\w./=-]){PROGRAM}(?= (?:{'|'.join(COMMANDS)})\b)")
