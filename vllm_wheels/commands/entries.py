"""The subcommands of ``vllm-wheels``: their names, modules and lines in the help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A subcommand in the list: its module of ``vllm_wheels.commands``, and its line.

    Attributes:
        tokens: whether it may hand tokens to an uploading process; all others close them first of all.
    """

    module: str
    summary: str
    tokens: bool = False


COMMANDS: Mapping[str, Entry] = {
    "plan": Entry(module="plan", summary="Show what a build would do, and why."),
    "build": Entry(module="build", summary="Build the wheels of a release, and try them."),
    "verify": Entry(module="verify", summary="Tell what is wrong with wheels, also other people's."),
    "publish": Entry(module="publish", summary="Publish the verified wheels of a release.", tokens=True),
    "index": Entry(module="index", summary="Write a static package index over our wheels."),
    "status": Entry(module="status", summary="Show all wheels, what is wrong, and what comes next."),
    "release": Entry(module="release", summary="Add, list and remove releases of vLLM."),
    "doctor": Entry(module="doctor", summary="Check this machine before a long build.", tokens=True),
    "recommend": Entry(module="recommend", summary="Tell which variant suits a processor."),
    "env": Entry(module="env", summary="Print the variables of Dagster's own commands."),
    "ui": Entry(module="ui", summary="Start the web UI, schedules and sensors."),
    "worker": Entry(module="worker", summary="Carry out steps of the runs of other machines."),
    "clean": Entry(module="clean", summary="Remove what can be made again."),
    "store": Entry(module="store", summary="Share artifacts with other machines."),
    "rebuild": Entry(module="rebuild", summary="Make a wheel again and compare the bytes."),
    "yank": Entry(module="yank", summary="Withdraw a version."),
    "set-up": Entry(module="set_up", summary="Install and start a container engine (as root)."),
    "completion": Entry(module="completion", summary="Print the script for the tab key."),
}
"""Subcommands by name, in the order in which a user needs them."""
