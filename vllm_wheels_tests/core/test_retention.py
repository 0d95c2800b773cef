"""What the store may forget."""

from __future__ import annotations

import pytest

from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.operations.cleaning import removable, remove
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.making import keep


@pytest.fixture
def store(tmp_path) -> Store:
    """Three releases; 0.30.0 and 0.31.0 share their tools, and every wheel was verified."""
    made = Store(tmp_path / "store")
    keep(made, "tools", "tools")
    keep(made, "source", "on-its-way")
    for release in ("0.9.2", "0.31.0", "0.32.0"):
        target = Target(release=release, python="3.11", variant="avx512")
        facts, made_from = {"sha256": f"h-{release}"}, {"tools": "tools", "compiled": f"c-{release}"}
        keep(made, "compiled", f"c-{release}", target=target)
        keep(made, "wheel", f"w-{release}", target=target, facts=facts, made_from=made_from)
        keep(made, "verification", f"v-{release}", target=target, facts=facts)
    return made


def names(artifacts: list[Artifact]) -> set[str]:
    return {artifact.key for artifact in artifacts}


def test_newest_releases_stay(store):
    """By version, not by text; what a newer release shares stays, and so does what is on its way."""
    assert names(removable(store, keep=2, published=())) == {"w-0.9.2", "c-0.9.2", "v-0.9.2"}


def test_published_wheel_stays_for_ever(store):
    """What a receipt names can always be rebuilt, verified again and compared."""
    assert names(removable(store, keep=1, published={"h-0.9.2"})) == {"w-0.31.0", "c-0.31.0", "v-0.31.0"}


def test_removing_frees_what_it_says(store, tmp_path):
    """Removed artifacts are gone from the disk, and all others can be found."""
    gone = removable(store, keep=1, published=())
    assert remove(gone) > 0
    assert store.find("wheel", "w-0.31.0") is None
    assert store.find("wheel", "w-0.32.0")
    assert not list(tmp_path.rglob("*.removed"))
