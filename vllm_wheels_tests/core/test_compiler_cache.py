"""The compiler's cache: what it is told, what it did, and why it may be cold."""

from __future__ import annotations

import json

import pytest

from vllm_wheels.core.builders import compiler_cache
from vllm_wheels.core.builders.compiler_cache import REMOTE, check, coldness, environment, launcher, missing, statistics
from vllm_wheels.core.errors import MachineError, SettingsError
from vllm_wheels.core.settings import BuilderSettings, Settings


def settings(**changes) -> BuilderSettings:
    return BuilderSettings(**changes)


def events(folder, *names: str) -> None:
    (folder / compiler_cache.LOG).write_text("\n".join(["# x.cpp", *names]) + "\n", "utf-8")


def test_statistics_count_this_build_alone(tmp_path):
    """Hits of both kinds and misses are counted; comments and other results are not."""
    events(tmp_path, "direct_cache_hit", "preprocessed_cache_hit", "cache_miss", "called_for_link")
    assert statistics(tmp_path) == {"hits": 2, "misses": 1}


def test_build_without_a_cache_has_no_hits(tmp_path):
    """Where no cache is on PATH, nothing is claimed."""
    assert statistics(tmp_path) == {"hits": 0, "misses": 0}


def test_statistics_of_sccache_are_read(tmp_path):
    """The hit rate is shown for sccache as well."""
    counts = {"cache_hits": {"counts": {"C/C++": 5}}, "cache_misses": {"counts": {"C/C++": 2, "Rust": 1}}}
    (tmp_path / compiler_cache.COUNTS).write_text(json.dumps({"stats": counts}), "utf-8")
    assert statistics(tmp_path) == {"hits": 5, "misses": 3}


def test_release_takes_no_object_from_where_a_fork_was_built(tmp_path):
    """Upstream's archives and tags share a cache; each fork and each local tree has one of its own."""
    fork, tree = {"origin": "git", "git_url": "https://example.org/fork.git"}, {"origin": "path", "path": tmp_path}
    names = [compiler_cache.folder_name(Settings(source=source)) for source in ({}, {"origin": "git"}, fork, tree)]
    assert names[0] == names[1] == compiler_cache.CACHE
    assert len(set(names)) == 3


def test_cache_that_hits_is_not_cold(tmp_path):
    """A variant whose oneDNN comes from the cache is told nothing."""
    events(tmp_path, "direct_cache_hit", *["cache_miss"] * 9)
    assert coldness(tmp_path, before=1.0, after=1.0, remote=False) is None


@pytest.mark.parametrize(
    ("names", "sizes", "remote", "reason"),
    [
        (["cache_miss"], (0.0, 0.1), False, "its folder was all but empty"),
        (["cache_miss"], (5.1, 5.1), False, "it is full (5.1 GB)"),
        (["cache_miss"], (1.0, 1.1), False, "the commands or the paths in them differ"),
        (["cache_miss", "remote_storage_timeout"], (1.0, 1.1), True, "its remote storage failed 1 times"),
        ([], (1.0, 1.0), False, "no compilation went through it"),
    ],
)
def test_cold_cache_is_reported_with_the_likely_reason(tmp_path, names, sizes, remote, reason):
    """When everything is compiled again, one line tells me why."""
    events(tmp_path, *names)
    line = coldness(tmp_path, before=sizes[0], after=sizes[1], remote=remote)
    assert line is not None
    assert line.startswith("the compiler cache is unexpectedly cold (0 hits of")
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ({"cache_remote": "s3://bucket"}, "ccache cannot store in s3", "set builder.compiler_cache = sccache"),
        (
            {"compiler_cache": "sccache", "cache_remote": "file:/srv"},
            "sccache cannot store in file",
            "set builder.compiler_cache = ccache",
        ),
        ({"cache_remote": "cache:6379"}, "ccache cannot store in cache", "correct builder.cache_remote"),
        ({"compiler_cache": "none", "cache_remote": "redis://c"}, "builder.compiler_cache is none", "remove one"),
        ({"compiler_cache": "sccache", "distcc_hosts": ("a",)}, "distcc_hosts is set", "compiler_cache = ccache"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, what, remedy):
    """A cache that cannot use my storage says so before anything is compiled, with the one that can."""
    with pytest.raises(SettingsError) as caught:
        check(settings(**changes))
    assert what in caught.value.what
    assert remedy in caught.value.remedy


def test_address_of_the_storage_is_in_no_plan():
    """A password in the address of the cache is not shown by a dry run."""
    for tool in ("ccache", "sccache"):
        shown = environment(settings(compiler_cache=tool, cache_remote="redis://:secret@cache"), fixed_places=True)
        assert REMOTE in shown.values()
        assert "secret" not in str(shown)


def test_bucket_is_named_to_sccache():
    """A bucket of my own server is found: its address, region, prefix, without TLS where the address says so."""
    remote = "s3://wheels/objects?endpoint=http://127.0.0.1:9000&region=eu"
    told = environment(settings(compiler_cache="sccache", cache_remote=remote), fixed_places=True)
    expected = {
        "SCCACHE_BUCKET": "wheels",
        "SCCACHE_S3_KEY_PREFIX": "objects",
        "SCCACHE_ENDPOINT": "http://127.0.0.1:9000",
        "SCCACHE_REGION": "eu",
        "SCCACHE_S3_USE_SSL": "false",
    }
    assert expected.items() <= told.items()


def test_chosen_cache_is_the_one_that_upstream_finds():
    """With both caches installed, mine is used, and none where I want none."""
    assert "VLLM_DISABLE_SCCACHE" not in environment(settings(compiler_cache="sccache"), fixed_places=True)
    assert environment(settings(), fixed_places=True)["VLLM_DISABLE_SCCACHE"] == "1"
    assert environment(settings(compiler_cache="none"), fixed_places=True)["CCACHE_DISABLE"] == "1"


def test_objects_hold_no_path_of_another_build():
    """Where each build has a folder of its own, ccache compiles with relative paths; else with them as they are."""
    assert {"CCACHE_DEPEND", "CCACHE_BASEDIR"} & set(environment(settings(), fixed_places=False)) == {"CCACHE_BASEDIR"}
    assert {"CCACHE_DEPEND", "CCACHE_BASEDIR"} & set(environment(settings(), fixed_places=True)) == {"CCACHE_DEPEND"}


def test_build_looks_for_the_tools_first():
    """A cache that I asked for is looked for; one that is only welcome is not."""
    assert launcher(settings()) == ()
    assert launcher(settings(compiler_cache="ccache"))[-1] == "ccache"
    assert "distcc" in launcher(settings(distcc_hosts=("a", "b")))


@pytest.mark.parametrize(
    ("lines", "changes", "what", "remedy"),
    [
        (["vllm-wheels: there is no ccache"], {"compiler_cache": "ccache"}, "no ccache", "install ccache"),
        (["vllm-wheels: there is no distcc"], {"distcc_hosts": ("a",)}, "no distcc", "install distcc"),
        (
            ["sccache: error: Server startup failed: refused", "vllm-wheels: sccache does not start"],
            {"compiler_cache": "sccache"},
            "sccache does not start",
            "builder.cache_remote",
        ),
    ],
)
def test_tool_that_is_not_there_is_an_error_with_a_remedy(lines, changes, what, remedy):
    """A missing tool is named with what to install or set, not as a failed build."""
    error = missing(["Overriding", *lines], settings(**changes))
    assert isinstance(error, MachineError)
    assert what in error.what
    assert remedy in error.remedy


def test_other_failures_are_not_the_caches():
    """An error of the compiler stays one."""
    assert missing(["x.cpp:1: error: no"], settings()) is None
