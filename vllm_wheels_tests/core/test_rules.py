"""The rules: one package is one kind of artifact, and everything else is derived from what it exports."""

from __future__ import annotations

import sys

import pytest

from vllm_wheels.core import artifacts
from vllm_wheels.core.engine.code import installed
from vllm_wheels.core.engine.rendering import as_markdown, document
from vllm_wheels.core.operations.builds import build_graph, in_order, rules
from vllm_wheels.core.settings import load
from vllm_wheels.core.target import Target
from vllm_wheels.core.variants import variants
from vllm_wheels_tests.fixtures.building import PYTHON

TARGET = Target(release="0.32.0", python=PYTHON, variant="avx512")
LISTING = '''
"""The kernels of a release, listed for a variant."""

from pathlib import Path

from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step
from vllm_wheels.core.engine.rule import PlanContext, Rule, Scope


def write(context: ActionContext, tree: str) -> Made:
    names = sorted(path.name for path in Path(tree).rglob("*.cpp"))
    (context.stage / "kernels.txt").write_text("".join(f"{name}\\n" for name in names))
    return Made(facts={"kernels": names})


def plan(context: PlanContext) -> Plan:
    source = context.known.get("source")
    tree = str(source.folder / "tree") if source else "<tree of source, not made yet>"
    step = Step(title="list the kernels", action=write, arguments=tree, writes=("{stage}/kernels.txt",), seconds=1)
    return Plan(artifact="listing", target=context.target, inputs={"sorted": True}, steps=(step,))


RULE = Rule(
    kind="listing",
    title="Kernels of the release",
    needs=("source",),
    scope=Scope.RELEASE | Scope.VARIANT,
    plan=plan,
    observed=("moon", "Phase of the moon"),
    phrases={"sorted": "order of the kernels changed"},
)
'''


@pytest.fixture
def listing(settings_environment, tmp_path, monkeypatch):
    """One more kind of artifact: a package beside the others, and nothing else."""
    package = tmp_path / "more" / "listing"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(LISTING, "utf-8")
    monkeypatch.setattr(artifacts, "__path__", [*artifacts.__path__, str(package.parent)])
    rules.cache_clear()
    yield rules()["listing"]
    rules.cache_clear()
    sys.modules.pop(f"{artifacts.__name__}.listing", None)


def test_new_kind_of_artifact_is_one_package(listing):
    """I add a package with a rule, and it is planned, made, kept, and found again."""
    builds = build_graph(load(), say=print)
    shown = as_markdown(document(builds, "listing", TARGET))
    assert "list the kernels" in shown
    made = builds.ensure("listing", TARGET)
    assert made.facts["kernels"] == (made.folder / "kernels.txt").read_text().split()
    assert made.facts["kernels"]
    assert made.made_from.keys() == {"source"}
    other_python = Target(release="0.32.0", python="3.14", variant="avx512")
    assert build_graph(load(), say=print).ensure("listing", other_python).key == made.key


def test_new_kind_of_artifact_has_an_asset(listing):
    """It stands in the graph for each variant, with its dependencies, its observed input and its description."""
    from vllm_wheels.defs import assets, keys  # noqa: PLC0415 - after the kind is there

    found = {key: each for each in assets.all_assets() for key in each.keys}
    of_kind = [keys.key("listing", name) for name in variants()]
    assert found.keys() >= set(of_kind)
    spec = found[of_kind[0]].get_asset_spec(of_kind[0])
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == {"source", "moon"}
    assert (spec.description, spec.code_version) == (listing.title, listing.code_version(next(iter(variants()))))


def test_rules_come_after_those_that_they_need():
    """Whatever order packages are found in, an artifact comes after what it is made from."""
    found = list(rules().values())
    for order in (found, found[::-1]):
        kinds = list(in_order(order))
        assert all(kinds.index(need) < kinds.index(kind) for kind in kinds for need in rules()[kind].needs)


@pytest.mark.parametrize("kind", list(rules()))
def test_code_of_a_rule_is_there(kind):
    """A module that was moved does not silently drop out of the key of what it makes."""
    assert set(rules()[kind].code) <= installed().modules().keys()


def test_every_kind_but_the_compiled_one_follows_our_code():
    """An old verdict or text never survives a correction of what made it; only compiling costs too much for that."""
    assert [kind for kind, rule in rules().items() if not rule.code] == ["compiled"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("avx512", {"avx512", "avx512vnni"}),
        ("avx512vnni", {"avx512vnni"}),
        ("avx512bf16", {"avx512bf16", "amxbf16"}),
        ("amxbf16", {"amxbf16"}),
    ],
)
def test_constants_of_other_variants_do_not_count(monkeypatch, tmp_path, changed, expected):
    """A changed flag makes anew the artifacts of its variant, of those that may hold its code, and of no other."""
    before = {(kind, name): rule.code_version(name) for kind, rule in rules().items() for name in variants()}
    table = (installed().root / "core/variants.toml").read_text("utf-8")
    entry = table.index(f"[{changed}]")
    (tmp_path / "variants.toml").write_text(table[:entry] + table[entry:].replace("-mavx512dq", "-mavx512other", 1))
    monkeypatch.setattr("vllm_wheels.core.variants.files", lambda _: tmp_path)
    variants.cache_clear()
    try:
        after = {(kind, name): rule.code_version(name) for kind, rule in rules().items() for name in variants()}
    finally:
        variants.cache_clear()
    moved = {place for place in before if before[place] != after[place]}
    assert {name for _, name in moved} == expected
    assert {kind for kind, _ in moved} == {"patched", "metadata", "verification"}
