"""``vllm-wheels doctor``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.text import Text

from vllm_wheels.commands import options
from vllm_wheels.commands.typed import as_typed
from vllm_wheels.core.host.secrets import Secrets
from vllm_wheels.core.operations.doctor.findings import Finding
from vllm_wheels.core.operations.doctor.probes import examine

STYLES = {"ok": "green", "problem": "bold red", "note": "yellow"}
WIDTH = 20


@click.command("doctor", epilog="Example: vllm-wheels doctor --allow-substitutes")
@click.option("--python-version", "python", metavar="X.Y", help="Python to build on. [default: this one]")
@options.json_option(what="what was found")
@options.substitutes_option
@click.pass_obj
def command(secrets: Secrets, *, python: str | None, json_file: Path | None, allow_substitutes: bool) -> None:
    """Check what a long build needs, in a few seconds; nothing is changed.

    Exit status: 0 a build can begin, 1 there are problems.
    """
    settings = options.read_settings(allow_substitutes=allow_substitutes)
    target = options.target_of(settings, release=None, pythons=(python,) if python else ())
    found: list[Finding] = []
    for finding in examine(settings, python=target.python, secrets=secrets):
        found.append(finding)
        _show(finding)
    problems = sum(finding.state == "problem" for finding in found)
    if json_file:
        findings = [asdict(finding) for finding in found]
        options.print_json(json_file, {"schema_version": 1, "problems": problems, "findings": findings})
    options.say(f"{problems} problems" if problems else "ready to build")
    sys.exit(1 if problems else 0)


def _show(finding: Finding) -> None:
    line = Text.assemble((f"{finding.state:<8}", STYLES[finding.state]), f"{finding.name:<{WIDTH}} {finding.found}")
    options.OUT.print(line)
    if finding.remedy:
        options.OUT.print(Text(f"{'':<8}do: {as_typed(finding.remedy)}"))
