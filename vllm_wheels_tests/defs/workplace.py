"""The folders of the settings, in which the miniature release is built, seen as a user sees them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import dagster as dg
import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine import rule
from vllm_wheels.core.engine.code import Code
from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.target import Target
from vllm_wheels.defs import assets, freshness, home, inputs, launch, partitions, staleness
from vllm_wheels.defs.keys import key
from vllm_wheels.defs.resources import BuildMode, BuildOptions

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGET = Target(release="0.32.0", python=PYTHON)
VARIANTS = ("baseline", "avx512")
CORE = Path(configuration.__file__).parent
KINDS = tuple(rules())


@dataclass
class Workplace:
    """Tells what is stale and what a run makes."""

    lines: list[str] = field(default_factory=list)

    @property
    def settings(self) -> configuration.Settings:
        """As the environment has them now."""
        return configuration.load()

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The database of runs and assets."""
        return home.instance(self.settings)

    @property
    def builds(self) -> BuildGraph:
        """A new one, which remembers nothing."""
        return build_graph(self.settings, say=self.lines.append)

    def artifacts(self) -> dict[str, set[str]]:
        """Fingerprints of all artifacts in the store, by kind."""
        root = self.settings.state_folder / "store"
        found: dict[str, set[str]] = {}
        for record in root.glob("*/*/artifact.json"):
            found.setdefault(record.parent.parent.name, set()).add(record.parent.name)
        return found

    def moved(self) -> dict[str, list[str]]:
        """Inputs that moved since they were last observed, by partition."""
        return staleness.observe(self.instance, self.builds, [TARGET], self.lines.append)

    def stale(self, kinds: Iterable[str] = KINDS, variants: Iterable[str] = VARIANTS) -> set[str]:
        """Assets that the nightly rebuild would request for the one partition there is."""
        among = [key(kind, variant) for kind in kinds for variant in variants]
        self.moved()
        found = staleness.closure(self.instance, graph(), [TARGET.partition], among)
        return {asset.to_user_string() for asset in found.get(TARGET.partition, [])}

    def materialize(self, names: Iterable[str], *, dry_run: bool = False) -> launch.Outcome:
        """Makes assets in this process."""
        keys = [dg.AssetKey.from_user_string(name) for name in names]
        options = BuildOptions()
        instance = self.instance
        partitions.register(instance, TARGET.release, TARGET.python)
        outcome = launch.launch(
            TARGET, keys, instance=instance, options=options, dry_run=dry_run, say=self.lines.append
        )
        assert outcome.failures == ()
        return outcome


def graph() -> dg.AssetGraph:
    """The graph with the code versions of this moment, as a freshly loaded code location has it."""
    definitions = dg.Definitions(
        assets=[*inputs.specs(), freshness.spec(configuration.load()), assets.overview(), *assets.all_assets()],
        resources={"build_mode": BuildMode(), "build_options": BuildOptions()},
    )
    return definitions.resolve_asset_graph()


def change_code(monkeypatch: pytest.MonkeyPatch, *paths: str, text: str = "\n_CHANGED = 1\n") -> None:
    """Lets files of the core look as if a text were appended to them; what runs is what it was."""
    changed = {CORE / path: (CORE / path).read_text("utf-8") + text for path in paths}
    code = Code(CORE.parent, changed=changed)
    monkeypatch.setattr(rule, "installed", lambda: code)


def new_artifacts(before: Mapping[str, set[str]], after: Mapping[str, set[str]]) -> dict[str, int]:
    """How many artifacts of each kind were made."""
    counts: Iterator[tuple[str, int]] = ((kind, len(after[kind] - before.get(kind, set()))) for kind in after)
    return {kind: count for kind, count in counts if count}
