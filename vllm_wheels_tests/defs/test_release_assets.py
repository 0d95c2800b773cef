"""The release assets: from a verified wheel to a receipt, through the test index, and never by accident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.engine.store import RECORD
from vllm_wheels.core.errors import PublicationError
from vllm_wheels.core.formats.wheel_name import wheels_in
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.publish.receipt import find
from vllm_wheels.defs import internals
from vllm_wheels.defs.keys import key
from vllm_wheels_tests.fixtures.building import PYTHON, TARGET, VARIANT, build
from vllm_wheels_tests.fixtures.front import fronted
from vllm_wheels_tests.fixtures.index_servers import pypiserver
from vllm_wheels_tests.fixtures.publishing import TOKEN


@pytest.fixture
def releasable(built) -> Path:
    """The miniature build as if it had been made of the official artifacts."""
    official = {"for_release": True, "deviations": []}
    # The store would make again what differs from how it was taken.
    taken = {"files": ""}
    changes = {"*provenance.json": official, f"store/wheel/*/{RECORD}": taken}
    for pattern, change in changes.items():
        for path in built.rglob(pattern):
            statement = json.loads(path.read_text())
            # The file has other names, in the folders of other tests.
            path.unlink()
            path.write_text(json.dumps({**statement, **change}))
    return built


@pytest.fixture
def indexes(tmp_path, monkeypatch):
    """A test index whose pages need a password, and a real one, both configured."""
    with (
        pypiserver(tmp_path / "a", private=True) as test_run,
        pypiserver(tmp_path / "b") as behind,
        fronted(behind) as real,
    ):
        real.rules = False
        described = {
            "test_run": {"upload_url": test_run.upload_url, "simple_url": test_run.simple_url, "rules": "none"},
            "real": {"upload_url": real.upload_url, "simple_url": real.simple_url, "rules": "none"},
        }
        publish = {
            "REPOSITORIES": json.dumps(described),
            "REPOSITORY": "real",
            "TEST_REPOSITORY": "test_run",
            "REQUIRED_VARIANTS": json.dumps([VARIANT]),
            "REQUIRED_PYTHONS": json.dumps([PYTHON]),
        }
        for name, value in publish.items():
            monkeypatch.setenv(f"VLLM_WHEELS_PUBLISH__{name}", value)
        tokens = tmp_path / "tokens"
        tokens.touch(0o600)
        tokens.write_text(f"PUBLISH_TOKEN_VLLM_CPU={TOKEN}\n")
        monkeypatch.setenv("VLLM_WHEELS_PUBLISH__TOKEN_FILE", str(tokens))
        yield test_run, real


def test_wheel_that_deviates_is_not_published(built, indexes, monkeypatch):
    """An armed installation refuses a wheel that is not for release, and tells why."""
    monkeypatch.setenv("VLLM_WHEELS_PUBLISH__ARMED", "true")
    (failure,) = build("release").failures
    assert isinstance(failure, PublicationError)
    assert "is not for release" in failure.what
    assert indexes[1].uploads == []


def test_release_asset_refuses_unless_armed(releasable, indexes):
    """Materializing everything in the UI publishes nothing by accident."""
    (failure,) = build("release").failures
    assert (type(failure), failure.why) == (PublicationError, "publish.armed is off")
    assert indexes[1].uploads == []


def test_dry_run_of_a_release_shows_the_plan(releasable, indexes):
    """A dry run of the asset compares with both indexes and uploads nothing."""
    done = build("release", dry_run=True)
    shown = "\n".join(done.lines)
    assert done.failures == ()
    assert "0.32.0 on test_run: empty" in shown
    assert "0.32.0 on real: empty" in shown
    assert indexes[1].uploads == []


def test_armed_release_goes_through_the_test_index_and_leaves_a_receipt(releasable, indexes, monkeypatch):
    """The verified bytes are on both indexes, were installed back and tried, and no trace of the token is left."""
    test_run, real = indexes
    monkeypatch.setenv("VLLM_WHEELS_PUBLISH__ARMED", "true")
    done = build("release")
    assert [str(failure) for failure in done.failures] == []
    settings = configuration.load()
    (wheel,) = wheels_in(settings.output_folder)
    receipt = find(settings.state_folder, repository="real", version="0.32.0", variant=VARIANT)
    version = internals.latest_data_version(done.instance, key("release", VARIANT), TARGET.partition)
    (report,) = receipt.tested["reports"].values()
    findings = {finding["check"]: finding["verdict"] for finding in report["findings"]}
    assert (version, receipt.hashes) == (receipt.data_version, {wheel.name: sha256_of(wheel)})
    assert real.stored() == receipt.hashes == {path.name: sha256_of(path) for path in test_run.packages.glob("*.whl")}
    assert (findings["comes-back"], findings["command-version"]) == ("passed", "passed")
    # Dagster's event storage lies below the state folder.
    files = [path for path in releasable.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.suffix == ".db" for path in files)
    assert [
        path for path in files if TOKEN.encode() in path.read_bytes() and path.name not in {"users", "tokens"}
    ] == []
