"""Why an artifact must be made again."""

from __future__ import annotations

import json

import pytest

from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.reasons import last_made, reasons
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.target import Target

TARGET = Target(release="0.32.0", python="3.11", variant="avx512")
METADATA = {
    "template_sha256": "a" * 64,
    "variant": {"flags": ["-mavx512f"], "floor": ["avx512f"]},
    "wheel": {"version_suffix": ""},
}


@pytest.fixture
def store(tmp_path) -> Store:
    """A store with one wheel of the target, made from one metadata artifact."""
    store = Store(tmp_path)
    _keep(store, "metadata", "m1", inputs=METADATA)
    statement = {"release": "0.32.0", "variant": "avx512", "artifacts": {"metadata": "m1", "compiled": "c1"}}
    _keep(store, "wheel", "w1", inputs={}, provenance=statement)
    return store


def _keep(store: Store, kind: str, key: str, *, inputs: dict, provenance: dict | None = None) -> None:
    with store.making(kind, key, wait_seconds=1) as stage:
        if provenance:
            (stage / "provenance.json").write_text(json.dumps(provenance))
        store.keep(kind, key, stage, inputs=inputs, facts={"sha256": "s"}, seconds=1)


def why(
    store: Store, artifact: str, inputs: dict, *, target: Target = TARGET, unknown: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The reasons for a plan."""
    plan = Plan(artifact=artifact, target=target, inputs=inputs, steps=(), unknown=unknown)
    return reasons(plan, last_made(target, store))


def test_changed_readme_template_is_named(store):
    """An artifact is stale because I edited the README template, and the plan says so."""
    assert why(store, "metadata", {**METADATA, "template_sha256": "b" * 64}) == ("README template changed",)


def test_changed_flags_are_named_with_the_variant(store):
    """I gave avx512 another compile flag."""
    changed = {**METADATA, "variant": {**METADATA["variant"], "flags": ["-mavx512f", "-mfma"]}}
    assert why(store, "metadata", changed) == ("flags of avx512 changed",)


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
    assert why(store, "compiled", {}, unknown=("metadata",)) == ("made from metadata, to be made first",)


def test_removed_artifact_is_not_called_changed(store):
    """The artifact was cleaned away; nothing changed."""
    compiled = Plan(artifact="compiled", target=TARGET, inputs={}, steps=())
    statement = {"release": "0.32.0", "variant": "avx512", "artifacts": {"compiled": compiled.key}}
    _keep(store, "wheel", "w2", inputs={}, provenance=statement)
    assert reasons(compiled, last_made(TARGET, store)) == ("no longer in the store",)


def test_change_against_a_removed_artifact_is_not_guessed_at(store):
    """The last compiled artifact is gone, so nobody knows what it was made from."""
    assert why(store, "compiled", {"torch": "2.14.0"})[0].startswith("inputs changed; the last one is no longer")
