"""Where a wheel is tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.settings import SmokeSettings
from vllm_wheels.core.verify import locations as location
from vllm_wheels.core.verify.locations import choose

REPAIRED = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_x86_64.whl"
NEWER = "vllm_cpu-0.32.0-cp311-abi3-manylinux_2_41_x86_64.whl"
RAW = "vllm_cpu-0.32.0-cp311-abi3-linux_x86_64.whl"
HOST = ["manylinux_2_36_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64", "linux_x86_64"]


@dataclass(frozen=True)
class NamedBuilder:
    name: str
    facts: Mapping[str, Any] = field(default_factory=lambda: {"compiler": "g++ 14"})

    def identity(self) -> Mapping[str, Any]:
        """What the report repeats."""
        return self.facts


@pytest.fixture(autouse=True)
def debian_12(monkeypatch):
    monkeypatch.setattr(location, "platform_tags", lambda: iter(HOST))


def chosen(wheel, builder="container (debian)", where="auto"):
    return choose(wheel, smoke=SmokeSettings(location=where), find_builder=lambda: NamedBuilder(builder))


@pytest.mark.parametrize(
    ("wheel", "builder", "where", "kind"),
    [
        (REPAIRED, "container (debian)", "auto", "host"),
        ("a-1-py3-none-any.whl", "container (debian)", "auto", "host"),
        ("a-1-cp311-abi3-manylinux_2_41_x86_64.manylinux2014_x86_64.whl", "container (debian)", "auto", "host"),
        (REPAIRED, "container (debian)", "container", "container"),
        (NEWER, "container (debian)", "auto", "container"),
        (RAW, "container (debian)", "auto", "container"),
        (RAW, "local", "auto", "host"),
        (RAW, "local", "host", "host"),
    ],
)
def test_venue_follows_platform_tag_and_builder(wheel, builder, where, kind):
    """A wheel runs on this host where its tag promises so, else in a container of the image that built it."""
    assert chosen(wheel, builder, where).kind == kind


def test_venue_says_why_it_is_not_the_host():
    """The report tells me which tag kept the wheel from this host."""
    found = chosen(NEWER)
    assert "manylinux_2_41_x86_64 is not a platform of this host" in found.why
    assert found.identity == {"builder": "container (debian)", "compiler": "g++ 14"}


@pytest.mark.parametrize(
    ("wheel", "builder", "where"),
    [
        (NEWER, "container (debian)", "host"),
        (RAW, "container (debian)", "host"),
        (NEWER, "local", "auto"),
        (REPAIRED, "local", "container"),
        ("vllm.whl", "local", "auto"),
        ("vllm_cpu-0.32.0-cp311-abi3-win_amd64.whl", "local", "auto"),
        ("vllm_cpu-0.32.0-cp311-abi3-manylinux_2_28_aarch64.whl", "local", "auto"),
    ],
)
def test_no_venue_is_no_verdict(wheel, builder, where):
    """A wheel that nothing here may run is not convicted for it; I am told what to set."""
    with pytest.raises(CannotVerifyError) as caught:
        chosen(wheel, builder, where)
    assert caught.value.remedy


def test_host_venue_needs_no_builder():
    """Verifying a portable wheel needs neither a compiler nor a container engine."""

    def refuse():
        pytest.fail("asked for the builder")

    assert choose(REPAIRED, smoke=SmokeSettings(), find_builder=refuse).kind == "host"
