"""What a build ends with: a table of its wheels, and the command to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from vllm_wheels.commands.options import OUT, say
from vllm_wheels.core.engine.run_cache import current
from vllm_wheels.core.errors import CannotVerifyError, VerificationError
from vllm_wheels.core.formats.wheel_name import sidecar
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.operations.delivery import Delivered, delivered
from vllm_wheels.core.operations.obtaining import installing

if TYPE_CHECKING:
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target

GAP = 2


def made(settings: Settings, targets: Sequence[Target]) -> list[Delivered]:
    """The wheels of the output folder that this run made or found in the store, each once."""
    wheel_of, ready = rules()["wheel"], current().artifacts
    found: dict[tuple[str, str], Delivered] = {}
    for target in targets:
        artifact = ready.get(wheel_of.name(target))
        for wheel in delivered(settings.output_folder, target):
            if artifact and wheel.sha256 == artifact.facts["sha256"]:
                found[wheel.name, wheel.verdict] = wheel
    return list(found.values())


def show(wheels: Sequence[Delivered], settings: Settings, *, verified: bool) -> None:
    """Prints the wheels and what to type next; one below the other where a table would be wider than the terminal."""
    if not wheels:
        return
    rows = [
        (f"{wheel.megabytes:.1f}", f"{wheel.seconds:.0f}", wheel.verdict, wheel.sha256, wheel.name) for wheel in wheels
    ]
    head = ("MB", "seconds", "verdict", "sha256", "wheel")
    width = sum(max(map(len, column)) + GAP for column in zip(head, *rows, strict=True))
    if OUT.is_terminal and width > OUT.width:
        for megabytes, seconds, verdict, sha256, name in rows:
            say(f"{name}\n  {megabytes} MB, {seconds} s, {verdict}\n  sha256 {sha256}")
    else:
        table = Table(*head, box=None, pad_edge=False)
        for column in table.columns:
            column.no_wrap = True
        for row in rows:
            table.add_row(*row)
        Console(highlight=False, width=max(OUT.width, width)).print(table)
    say(f"in {settings.output_folder}")
    say(f"next: {_next(wheels, settings, verified=verified)}")


def require_verdicts(wheels: Sequence[Delivered]) -> None:
    """Raises VerificationError where a wheel was convicted, else CannotVerifyError where one could not be judged."""
    remedy = "read the report.md beside the wheel"
    if convicted := _of_verdict(wheels, "convicted"):
        what, why = f"convicted: {convicted}", "the wheel is not what it claims to be"
        raise VerificationError(what, why=why, remedy=remedy)
    if left_open := _of_verdict(wheels, "could-not-judge"):
        what = f"{left_open} could not be verified"
        why = "something here keeps a check from being carried out; that is neither passed nor convicted"
        raise CannotVerifyError(what, why=why, remedy=remedy)


def _of_verdict(wheels: Sequence[Delivered], verdict: str) -> str:
    return ", ".join(wheel.name for wheel in wheels if wheel.verdict == verdict)


def _next(wheels: Sequence[Delivered], settings: Settings, *, verified: bool) -> str:
    first = wheels[0]
    path = shlex.quote(str(settings.output_folder / first.name))
    for verdict in ("convicted", "could-not-judge"):
        if wheel := next((each for each in wheels if each.verdict == verdict), None):
            return f"less {shlex.quote(str(sidecar(settings.output_folder / wheel.name, '')))}*.report.md"
    if not verified:
        return f"vllm-wheels verify {path}"
    if all(wheel.for_release for wheel in wheels):
        return f"vllm-wheels publish --release {first.release}"
    return f"{installing(settings, settings.output_folder / first.name)}   # not for release: provenance.json says why"
