"""What the key of a compile covers: whatever changes objects, and nothing that only changes how long it takes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vllm_wheels.core.artifacts.compiled import RULE
from vllm_wheels.core.artifacts.torch_env import spec
from vllm_wheels.core.engine.plan import Plan
from vllm_wheels.core.engine.store import Artifact, Store
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.target import Target
from vllm_wheels_tests.core.making import artifact, drawn_up
from vllm_wheels_tests.core.patch_tree import upstream

TARGET = Target(release="0.33.0", python="3.11", variant="avx512")


class Compiler:
    """A builder that only says which compiler it has."""

    def __init__(self, version: str = "14.2") -> None:
        self.version = version

    def identity(self) -> dict[str, str]:
        """What of it decides about objects."""
        return {"kind": "container", "compiler": f"g++ {self.version}"}


def made(tmp_path: Path) -> dict[str, Artifact]:
    """What a compile needs."""
    source = artifact("source", tmp_path / "source", details={"upstream": asdict(upstream())})
    others = {kind: artifact(kind, tmp_path / kind, facts={"sha256": kind}) for kind in RULE.needs if kind != "source"}
    return {"source": source, **others}


def planned(tmp_path: Path, compiler: str = "14.2", changed: Artifact | None = None, **settings) -> Plan:
    known = made(tmp_path) | ({changed.kind: changed} if changed else {})
    return drawn_up(
        RULE,
        Settings(state_folder=tmp_path / "state", **settings),
        Store(tmp_path / "store"),
        target=TARGET,
        known=known,
        find_builder=lambda: Compiler(compiler),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"builder": {"max_jobs": 1}},
        {"builder": {"compiler_cache": "none"}},
        {"builder": {"compiler_cache": "sccache"}},
        {"builder": {"compiler_cache": "sccache", "cache_remote": "s3://bucket/x?endpoint=http://127.0.0.1:9"}},
        {"builder": {"cache_remote": "redis://127.0.0.1"}},
        {"builder": {"distcc_hosts": ("one", "two")}},
        {"builder": {"timeout_seconds": 100.0}},
        {"index": {"timeout_seconds": 3.0}},
    ],
    ids=str,
)
def test_how_it_is_compiled_makes_no_other_key(tmp_path, monkeypatch, settings):
    """Fewer jobs, another cache or other hosts compile the same objects, so nothing is compiled again for them."""
    monkeypatch.setenv("MAX_JOBS", "7")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "1")
    plan = planned(tmp_path, **settings)
    assert plan.key
    assert plan.key == planned(tmp_path).key


def test_another_compiler_makes_another_key(tmp_path):
    """After an update of the compiler, the variant is compiled again."""
    assert planned(tmp_path, "14.3").key != planned(tmp_path).key


@pytest.mark.parametrize("kind", RULE.needs)
def test_another_input_makes_another_key(tmp_path, kind):
    """Other sources, build files, oneDNN or torch are compiled anew."""
    changed = replace(made(tmp_path)[kind], facts={"sha256": "changed"})
    assert planned(tmp_path, changed=changed).key != planned(tmp_path).key


def test_input_made_again_makes_no_other_key(tmp_path):
    """The same tree from another server, later, is compiled no second time."""
    source = made(tmp_path)["source"]
    details = {**source.details, "origin": {"kind": "git"}}
    again = replace(source, key="other", code="other", made_at=9.0, details=details)
    assert planned(tmp_path, changed=again).key == planned(tmp_path).key


def test_flag_of_the_build_makes_another_key(tmp_path):
    """What upstream's build is told counts, word by word."""
    plan = planned(tmp_path)
    copy, compile_, *rest = plan.steps
    (command,) = compile_.invocations
    flagged = replace(command, environment={**command.environment, "CMAKE_ARGS": "-DOTHER=ON"})
    assert replace(plan, steps=(copy, replace(compile_, invocations=(flagged,)), *rest)).key != plan.key


def test_code_of_ours_makes_no_other_key():
    """No edit of Python code compiles anything again, but by the commands and build files that it writes."""
    assert RULE.code == ()


def test_compiler_cache_decides_no_version_of_the_environment():
    """The sccache that stands beside torch is none of what is compiled with."""
    plain, cached = (
        spec.torch_spec(TARGET, upstream(), Settings(builder={"compiler_cache": tool})) for tool in ("auto", "sccache")
    )
    assert "sccache" in cached.lines
    assert cached.names == plain.names
