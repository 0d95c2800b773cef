"""Puts the build graph together: the rules of all kinds of artifacts, and the builders of the settings."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, get_args

from vllm_wheels.core import artifacts
from vllm_wheels.core.engine.rule import Rule, Stage
from vllm_wheels.core.verify.rule import RULE as VERIFICATION

if TYPE_CHECKING:
    from vllm_wheels.core.engine.graph import BuildGraph, Watcher
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target


@cache
def rules() -> Mapping[str, Rule]:
    """The rule of every kind of artifact, each after those that it needs.

    A package of ``core.artifacts`` is a kind; judging the wheel is one more.
    """
    packages = (import_module(f"{artifacts.__name__}.{each.name}") for each in pkgutil.iter_modules(artifacts.__path__))
    return in_order([*(package.RULE for package in packages), VERIFICATION])


def in_order(found: list[Rule]) -> Mapping[str, Rule]:
    """Rules by kind, each after those that it needs; among equals in the order of their stages."""
    known = {rule.kind: rule for rule in found}
    ordered: dict[str, Rule] = {}

    def add(kind: str) -> None:
        for need in known[kind].needs:
            add(need)
        ordered.setdefault(kind, known[kind])

    for rule in sorted(found, key=lambda rule: get_args(Stage).index(rule.stage)):
        add(rule.kind)
    return ordered


def build_graph(
    settings: Settings,
    *,
    say: Callable[[str], None],
    echo: Callable[[str], None] | None = None,
    on_artifact: Callable[[Target, Artifact, bool], None] | None = None,
    watcher: Watcher | None = None,
    own_rules: Mapping[str, Rule] | None = None,
    set_up: bool = False,
    retry: bool = False,
    automatic: bool = False,
) -> BuildGraph:
    """The build graph of an installation; see ``BuildGraph``. ``own_rules`` take the place of the installation's.

    With ``set_up``, which is for plans only, what this machine lacks is taken for there.
    """
    # Whoever only asks for the rules does not load what making an artifact needs.
    from vllm_wheels.core.builders.choose import ConfiguredBuilders  # noqa: PLC0415
    from vllm_wheels.core.engine.graph import BuildGraph  # noqa: PLC0415

    return BuildGraph(
        settings=settings,
        rules=own_rules or rules(),
        builders=ConfiguredBuilders(set_up=set_up),
        say=say,
        echo=echo,
        on_artifact=on_artifact,
        watcher=watcher,
        retry=retry,
        automatic=automatic,
    )
