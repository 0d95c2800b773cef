"""Two machines that share nothing but a network: what the first made, the second neither compiles nor repairs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.host.signing import generate
from vllm_wheels_tests.fixtures import machines, servers
from vllm_wheels_tests.fixtures.building import PYTHON
from vllm_wheels_tests.fixtures.machines import Machine
from vllm_wheels_tests.fixtures.miniature import variables

pytestmark = pytest.mark.servers

BUILD = ("build", "--variant", "baseline", "--release", "0.32.0", "--python-version", PYTHON)
MOST_SECONDS = 60.0


def configured(machine: Machine, bucket: str, trusted: dict[str, str], key: Path | None) -> Machine:
    """The machine with settings that lead to the bucket; without a key it only takes."""
    remote = {"url": bucket, "push": key is not None}
    values = {"VLLM_WHEELS_STORE__REMOTES": json.dumps({"bucket": remote})}
    values["VLLM_WHEELS_STORE__TRUSTED_KEYS"] = json.dumps(trusted)
    if key:
        values["VLLM_WHEELS_STORE__SIGNING_KEY"] = str(key)
    return replace(machine, variables={**machine.variables, **servers.KEYS, **values})


@pytest.fixture
def two(tmp_path, miniature_index, torch_folder, monkeypatch) -> Iterator[tuple[Machine, Machine]]:
    """One that pushes what it makes to a bucket, and another that only reads it."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    port = urlsplit(miniature_index.url).port
    assert port
    with machines.network(tmp_path, "vw-one", "vw-two", relayed=(port,)) as (one, two):
        common = variables(tmp_path, miniature_index, torch_folder)
        office = generate(one.folder / "office.pem")
        with servers.s3(tmp_path, machines.HOST) as bucket:
            trusted = {office.name: office.public}
            settings = [replace(each, variables=common) for each in (one, two)]
            yield (
                configured(settings[0], bucket, trusted, one.folder / "office.pem"),
                configured(settings[1], bucket, trusted, None),
            )


def only(machine: Machine, kind: str) -> Artifact:
    (found,) = Store(machine.state / "store").artifacts(kind)
    return found


def test_wheel_of_the_first_machine_costs_the_second_no_compile(two):
    """The second machine has the same wheel within a minute; every artifact of it is the first one's."""
    one, other = two
    made = one.run(*BUILD)
    assert made.returncode == 0, made.stdout + made.stderr
    started = time.monotonic()
    taken = other.run(*BUILD)
    seconds = time.monotonic() - started
    print(made.stdout, f"--- the second machine, {seconds:.1f} s", taken.stdout, sep="\n")  # noqa: T201 - the transcript
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert seconds < MOST_SECONDS
    for kind in (
        "source",
        "onednn",
        "torch_env",
        "tools",
        "patched",
        "native",
        "metadata",
        "compiled",
        "repaired",
        "wheel",
    ):
        assert only(other, kind).record == only(one, kind).record, kind
    assert only(other, "verification").record == only(one, "verification").record
    wheels = [wheel_in(only(machine, "wheel").folder) for machine in (one, other)]
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    assert not (other.state / "ccache").exists()
    assert "taking compiled from the remote store bucket" in taken.stdout


def test_machine_whose_bucket_is_gone_makes_its_own_wheel(two):
    """Without the network's bucket a build says so once, and comes out the same."""
    nowhere = f"s3://nobody/objects?endpoint=http://{machines.HOST}:9&region=r"
    gone = configured(two[0], nowhere, {"office": "k" * 43 + "="}, None)
    made = gone.run(*BUILD, "--no-verify")
    assert made.returncode == 0, made.stdout + made.stderr
    assert (made.stdout + made.stderr).count("is left alone in this run") == 1
