"""One answer to "is it fresh": after each change, Dagster calls stale exactly what the store would make again."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core import variants as variants_module
from vllm_wheels.core.artifacts import compiled
from vllm_wheels.core.artifacts.torch_env import planning as environments
from vllm_wheels.core.engine.code import Code, normalised
from vllm_wheels.core.engine.graph import IMAGE, BuildGraph
from vllm_wheels.core.errors import CannotVerifyError, SourceError
from vllm_wheels.core.operations.builds import build_graph, rules
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.verify import parts
from vllm_wheels.core.verify.planning import ALL
from vllm_wheels.defs import home, staleness
from vllm_wheels.defs.keys import key
from vllm_wheels.defs.sqlite import kept_open
from vllm_wheels_tests.defs.other_settings import Place, changed, changes
from vllm_wheels_tests.defs.workplace import CORE, KINDS, TARGET, VARIANTS, change_code, graph
from vllm_wheels_tests.fixtures import releases
from vllm_wheels_tests.fixtures.building import copy_artifacts
from vllm_wheels_tests.fixtures.miniature import variables

pytestmark = pytest.mark.slow

MODULES = sorted(path for path in CORE.rglob("*.py"))
DATA = sorted(path for path in CORE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"})
APPENDED = {".toml": "\n_changed = 1\n", ".c": "\nint changed;\n"}

OF_NO_ARTIFACT = {
    "builders/debian.dockerfile": "names the image, whose content is an input of what is compiled in it",
    "builders/images.toml": "names the image, whose content is an input of what is compiled in it",
    "builders/manylinux.dockerfile": "names the image, whose content is an input of what is compiled in it",
    "operations/status.html.tmpl": "lays out the page of all wheels, which nothing is made from",
    "host/processors.toml": "tells people which variant their processor takes",
    "variants.toml": "each of its entries is an input of its own variant; a test of its own changes one",
}
"""Data files whose change makes nothing again, with the reason."""


@dataclass
class Answers:
    """Asks the store and Dagster what is out of date.

    Attributes:
        settings: of the user.
        instance: what Dagster knows.
        lines: what was said.
    """

    settings: Settings
    instance: dg.DagsterInstance
    lines: list[str]

    def both(self, settings: Settings | None = None, definitions: dg.AssetGraph | None = None) -> set[str]:
        """The artifacts that are out of date, by the store and by Dagster, which must name the same; then as before."""
        builds = build_graph(settings or self.settings, say=self.lines.append)
        by_store = self._missing(builds)
        moved = self.moved(builds)
        # With the graph and the observed inputs as they were Dagster has nothing new to answer from.
        by_dagster = self._stale(definitions or self.definitions) if moved or definitions else self.before
        if moved:
            self.moved(self.unchanged)
        assert by_dagster == by_store
        return by_store

    def moved(self, builds: BuildGraph) -> dict[str, list[str]]:
        """Has Dagster observe the inputs from outside; those that moved."""
        return staleness.observe(self.instance, builds, [TARGET], self.lines.append)

    def look_around(self) -> None:
        """Draws up the plans of the unchanged state, and the graph, once."""
        self.unchanged = build_graph(self.settings, say=self.lines.append)
        self.definitions = graph()
        self._missing(self.unchanged)
        self.before = self._stale(self.definitions)

    def _missing(self, builds: BuildGraph) -> set[str]:
        """Artifacts that the store does not have under today's key, and all that is made from them."""
        missing: set[dg.AssetKey] = set()
        for name in VARIANTS:
            for plan, artifact in builds.plans(KINDS[-1], replace(TARGET, variant=name)):
                needs = () if plan.artifact == IMAGE else rules()[plan.artifact].needs
                if plan.artifact != IMAGE and (artifact is None or missing & {key(need, name) for need in needs}):
                    missing.add(key(plan.artifact, name))
        return {each.to_user_string() for each in missing}

    def _stale(self, definitions: dg.AssetGraph) -> set[str]:
        among = {key(kind, name) for kind in KINDS for name in VARIANTS}
        found = staleness.closure(self.instance, definitions, [TARGET.partition], among)
        return {each.to_user_string() for each in found.get(TARGET.partition, [])}


@pytest.fixture(scope="module")
def everything_built(two_built, tmp_path_factory, miniature_index, torch_folder):
    """Answers about two variants that are built and tried; what the index answers to uv stays the same throughout."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "state").mkdir()
    copy_artifacts(two_built, folder / "state")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(folder, miniature_index, torch_folder).items():
            patch.setenv(name, value)
        patch.delenv("DAGSTER_HOME", raising=False)
        settings = configuration.load()
        instance = home.instance(settings)
    with pytest.MonkeyPatch.context() as patch, kept_open():
        patch.setattr(environments, "lock", _remembered(environments.lock))
        patch.setattr(staleness, "variants", lambda: VARIANTS)
        answers = Answers(settings, instance, [])
        answers.look_around()
        assert answers.both() == answers.before == set()
        yield answers


def _remembered(lock: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], Any] = {}

    def asked(lines: tuple[str, ...], *, python: str, **more: Any) -> Any:
        if (lines, python) not in known:
            known[lines, python] = lock(lines, python=python, **more)
        return known[lines, python]

    return asked


def downstream(kinds: set[str], variants: tuple[str, ...] = VARIANTS) -> set[str]:
    """The assets of kinds, and of all that is made from them, for some variants."""
    found = set(kinds)
    for kind, rule in rules().items():
        if found & {*rule.needs}:
            found.add(kind)
    return {key(kind, name).to_user_string() for kind in found for name in variants}


def reaching(path: Path) -> frozenset[str]:
    """Kinds whose rule names the file, directly or not."""
    return frozenset(kind for kind, files in REACHED.items() if path in files)


REACHED = {kind: frozenset(Code(CORE.parent).reached(rule.code)) for kind, rule in rules().items() if rule.code}


def grouped(paths: list[Path]) -> dict[str, list[Path]]:
    """Files that the same rules reach, together, by the names of these."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(" ".join(sorted(reaching(path))) or "none", []).append(path)
    return found


MODULE_GROUPS, DATA_FILES = grouped(MODULES), {path.relative_to(CORE).as_posix(): path for path in DATA}


def inside(path: Path) -> str:
    return path.relative_to(CORE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_change_of_a_module_changes_its_hash_and_a_comment_does_not(path):
    """A statement counts; a comment and a docstring do not."""
    text = path.read_text("utf-8")
    before = normalised(ast.parse(text))
    assert normalised(ast.parse(f"{text}\n_CHANGED = 1\n")) != before
    assert normalised(ast.parse(f"{text}\n# a comment\n\n'''A text that nobody reads.'''\n")) == before


@pytest.mark.parametrize("group", MODULE_GROUPS)
def test_changed_modules_touch_what_they_make_or_judge(everything_built, monkeypatch, group):
    """Modules that the same kinds of artifacts reach make these stale, and all that is made from them."""
    change_code(monkeypatch, *map(inside, MODULE_GROUPS[group]))
    kinds = set(group.split()) - {"none"}
    assert everything_built.both(definitions=graph()) == downstream(kinds)


def test_every_module_that_a_rule_loads_is_among_those_that_it_reaches(tmp_path):
    """What reading the code finds is what really runs: importing a rule's code loads no module beyond."""
    for kind in ("wheel", "verification"):
        modules = Code(CORE.parent).modules()
        names = [name for name in modules for root in rules()[kind].code if f"{name}.".startswith(f"{root}.")]
        lines = [*(f"import {name}" for name in names), "import json, sys", "print(json.dumps(list(sys.modules)))"]
        loaded = json.loads(
            subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True).stdout
        )
        ours = {modules[name] for name in loaded if name in modules}
        assert {inside(path) for path in ours - REACHED[kind]} == set()


@pytest.mark.parametrize("name", DATA_FILES)
def test_changed_data_file_touches_what_reads_it(everything_built, monkeypatch, name):
    """A data file counts like the code that names it; of those that decide nothing, the reason is known."""
    change_code(monkeypatch, name, text=APPENDED.get(DATA_FILES[name].suffix, "\nchanged\n"))
    kinds = reaching(DATA_FILES[name])
    assert everything_built.both(definitions=graph()) == downstream(set(kinds))
    assert (name in OF_NO_ARTIFACT) == (not kinds)


def test_comments_and_docstrings_touch_nothing(everything_built, monkeypatch):
    """All modules with another comment and another docstring: everything stays fresh."""
    text = "\n# a comment\n\n'''A text that nobody reads.'''\n"
    change_code(monkeypatch, *map(inside, MODULES), text=text)
    assert everything_built.both(definitions=graph()) == set()


def test_changed_flag_of_one_variant_touches_that_variant_only(everything_built, monkeypatch, tmp_path):
    """Another flag of avx512 leaves baseline as fresh as it was."""
    text = (CORE / "variants.toml").read_text("utf-8")
    head, mark, tail = text.partition("[avx512]")
    changed = head + mark + tail.replace('"-mavx512dq"', '"-mavx512dq", "-mprefer-vector-width=256"', 1)
    (tmp_path / "variants.toml").write_text(changed)
    monkeypatch.setattr(variants_module, "files", lambda _: tmp_path)
    variants_module.variants.cache_clear()
    try:
        touched = {kind for kind in KINDS if rules()[kind].per_variant}
        assert everything_built.both(definitions=graph()) == downstream(touched, variants=("avx512",))
    finally:
        variants_module.variants.cache_clear()


def test_changed_build_constant_recompiles(everything_built, monkeypatch):
    """What is compiled otherwise is compiled again."""
    monkeypatch.setitem(compiled.BUILD, "epoch", "1577836801")
    assert everything_built.both(definitions=graph()) == downstream({"compiled"})


@pytest.mark.parametrize("tool", sorted({tool for check in ALL for tool in check.tools}))
def test_newer_tool_of_the_checks_judges_wheels_again(everything_built, monkeypatch, tool):
    """Another version of a tool that checks use makes every verdict stale, and nothing else."""
    known = parts.installed_version
    monkeypatch.setattr(parts, "installed_version", lambda name: "99" if name == tool else known(name))
    assert everything_built.both() == downstream({"verification"})


REFUSED = {"smoke.location=container": CannotVerifyError, "onednn.path": SourceError}
"""Changes after which no plan can be drawn up here; what is known stays as it is."""

MOVES = {
    "source.origin=path": {"source"},
    "source.origin=git": {"source"},
    "index.url": {"verification"},
    "index.find_links": {"verification"},
    "index.extra_urls": {"verification"},
    "torch.backend=cpu": {"verification"},
    "torch.packages": {"torch_env", "verification"},
    "torch.version": {"metadata"},
    "onednn.origin=pinned": {"onednn"},
    "builder.kind=auto": None,
    "builder.kind=container": {"compiled"},
    "builder.compiler_cache=sccache": {"torch_env"},
    "builder.unified_baseline": {"patched", "metadata"},
    "wheel.distributions": {"patched", "metadata"},
    "wheel.authors": {"metadata"},
    "wheel.urls": {"metadata"},
    "wheel.version_suffix": {"metadata", "repaired"},
    "wheel.same_code_variants=refuse": {"metadata"},
    "wheel.torch_requirement=local": {"metadata", "verification"},
    "wheel.readme": {"metadata"},
    "wheel.licence": {"patched", "metadata", "verification"},
    "smoke.location=host": set(),
    "smoke.generate": {"verification"},
    "smoke.models": {"verification"},
}
"""The kinds that a changed setting touches first; None where it depends on the machine. Other settings touch none."""


@pytest.fixture(scope="module")
def place(everything_built, tmp_path_factory):
    """Folders and repositories that the settings name without using them, so that one more changed setting does."""
    root = tmp_path_factory.mktemp("settings")
    repository = releases.git_repository("unified", "0.32.0", root / "vllm")
    pinned = releases.git_repository("unified", "0.32.0", root / "oneDNN")
    subprocess.run(["git", "-C", pinned, "tag", "v3.13"], check=True)
    named = {
        "source": {"git_url": str(repository), "path": repository},
        "onednn": {"git_url": str(pinned)},
        # The official image would be asked for at its registry.
        "builder": {"image": "debian"},
    }
    settings = everything_built.settings
    for section, values in named.items():
        settings = settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})
    return Place(root, settings)


@pytest.mark.parametrize("change", changes())
def test_changed_setting_touches_what_it_decides(everything_built, place, change):
    """Each setting, one at a time: what the store would make again is what Dagster calls stale."""
    if change in REFUSED:
        with pytest.raises(REFUSED[change]):
            everything_built.both(changed(place, change))
        assert everything_built.moved(build_graph(changed(place, change), say=print)) == {}
        return
    found = everything_built.both(changed(place, change))
    expected = MOVES.get(change, set())
    if expected is not None:
        assert found == downstream(expected)


def test_all_code_changed_at_once_compiles_nothing(everything_built, monkeypatch):
    """Whatever Python code is edited: what is made again comes out as before, so that the compiled objects stay."""
    change_code(monkeypatch, *map(inside, MODULES))
    made = {}
    builds = build_graph(
        everything_built.settings,
        say=everything_built.lines.append,
        on_artifact=lambda _, artifact, now: made.update({artifact.kind: now}),
    )
    builds.ensure("compiled", replace(TARGET, variant=VARIANTS[0]))
    assert made == {**dict.fromkeys(builds.closure("compiled"), True), "compiled": False}
