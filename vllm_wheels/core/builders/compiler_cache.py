"""Configures ccache, sccache and distcc, reads their statistics, and explains a low hit rate.

Upstream's setup.py takes sccache where it is on PATH, else ccache (``is_sccache_available``); variables decide which
of them it finds. Distributing goes through ccache, which hands what it must compile to distcc (its "prefix").
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from vllm_wheels.core.engine.builder import PLACE
from vllm_wheels.core.errors import MachineError, SettingsError
from vllm_wheels.core.host import limits
from vllm_wheels.core.settings import SourceSettings

if TYPE_CHECKING:
    from vllm_wheels.core.settings import BuilderSettings, Settings

CACHE = "ccache"
"""Folder of ccache's cache below the state folder."""

PLACE_OF_CACHE = f"{PLACE}/ccache"
LOG = "ccache.log"
"""In the build folder: what ccache did, one name a line (its manual, "stats_log")."""

COUNTS = "sccache.json"
"""In the build folder: what sccache did (``sccache --show-stats``)."""

REMOTE = "{cache}"
"""Stands in a command for the address of the remote storage, which may hold a password."""

SCHEMES: Mapping[str, tuple[str, ...]] = {
    "ccache": ("redis", "redis+unix", "http", "file"),
    "sccache": ("redis", "rediss", "s3", "http", "https"),
}
"""What each cache can keep its results in, by the scheme of ``builder.cache_remote``."""

PROGRAMS = "bin"
"""Folder of programs in the build folder."""

ANY_ORDER = Path(__file__).with_name("any_order.py")
IN_ANY_ORDER = f'PATH="{PLACE}/build/{PROGRAMS}:$PATH"; export PATH; exec "$@"'
"""The build with the ninja of ``put_any_order`` in front of the real one."""

AT_FIXED_PLACES = {"CCACHE_DEPEND": "1"}
"""No run of the preprocessor on every miss: the compiler itself tells what it read. It is given the paths as they are,
which go into the objects (``__FILE__``) and are the same in every build, with every cache and with none."""

ANYWHERE = {"CCACHE_BASEDIR": PLACE}
"""Relative paths, so that no object holds the name of a folder that only one build has."""

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
MARK = "vllm-wheels"
NEEDING = 'command -v "$1" > /dev/null || { echo "$0: there is no $1"; exit 69; }; shift; exec "$@"'
SERVED = (
    'sccache --start-server || { echo "$0: sccache does not start"; exit 69; }; "$@"; status=$?; '
    f"sccache --show-stats --stats-format=json > {PLACE}/build/{COUNTS}; "
    "sccache --stop-server > /dev/null; exit $status"
)
"""The build with a server of its own, whose first act is a look into its storage."""

WITHOUT_HEADERS = 'export CMAKE_ARGS="$CMAKE_ARGS -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON"; exec "$@"'
"""Other hosts cannot read this one's precompiled headers; without them the objects are the same."""

COLD = 0.05
"""Share of hits up to which a cache is called cold."""

NEARLY = 0.8
"""Of that size; ccache begins to remove in one sixteenth of its folders before the others are full."""


def check(builder: BuilderSettings) -> None:
    """Makes sure that the settings go together.

    Raises:
        SettingsError: the cache cannot use that storage, or distcc has nothing to go through.
    """
    tool = "sccache" if builder.compiler_cache == "sccache" else "ccache"
    remote = builder.cache_remote
    if remote and builder.compiler_cache == "none":
        what = "builder.cache_remote is set, and builder.compiler_cache is none"
        raise SettingsError(what, why="without a cache nothing is stored", remedy="remove one of the two")
    if remote and (scheme := urlsplit(remote).scheme) not in SCHEMES[tool]:
        other = next((name for name, schemes in SCHEMES.items() if scheme in schemes), None)
        what = f"{tool} cannot store in {scheme or remote}"
        why = f"builder.cache_remote may begin with {', '.join(f'{each}:' for each in SCHEMES[tool])}"
        remedy = f"set builder.compiler_cache = {other}" if other else "correct builder.cache_remote"
        raise SettingsError(what, why=why, remedy=remedy)
    if builder.distcc_hosts and builder.compiler_cache not in {"auto", "ccache"}:
        what = f"builder.distcc_hosts is set, and builder.compiler_cache is {builder.compiler_cache}"
        raise SettingsError(what, why="distcc is started by ccache", remedy="set builder.compiler_cache = ccache")


def requirements(builder: BuilderSettings) -> tuple[str, ...]:
    """What the cache needs from the package index; a system's own sccache is nearly always too old."""
    return ("sccache",) if builder.compiler_cache == "sccache" else ()


def folder_name(settings: Settings) -> str:
    """Folder of the cache below the state folder: one for upstream's releases, one for each other origin.

    What is built writes into its cache whatever it likes, so that a release must not take objects from where a fork or
    somebody's tree was built.
    """
    name = "sccache" if settings.builder.compiler_cache == "sccache" else CACHE
    source = settings.source
    if source.origin == "index" or (source.origin == "git" and source.git_url == SourceSettings().git_url):
        return name
    origin = source.git_url if source.origin == "git" else str(source.path)
    return f"{name}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}"


def environment(builder: BuilderSettings, *, fixed_places: bool) -> dict[str, str]:
    """Variables for the build; may hold ``{cache}``. Places are fixed where all builds see the same: in containers."""
    if builder.compiler_cache == "none":
        return {"VLLM_DISABLE_SCCACHE": "1", "CCACHE_DISABLE": "1"}
    if builder.compiler_cache == "sccache":
        local = {} if builder.cache_remote else {"SCCACHE_DIR": PLACE_OF_CACHE}
        return {**local, "SCCACHE_BASEDIRS": PLACE, "SCCACHE_IDLE_TIMEOUT": "600", **_storage_of_sccache(builder)}
    # Both names: ccache 4.7 renamed the variable, and warns of neither.
    remote = {"CCACHE_REMOTE_STORAGE": REMOTE, "CCACHE_SECONDARY_STORAGE": REMOTE} if builder.cache_remote else {}
    hosts = " ".join(builder.distcc_hosts)
    return {
        "VLLM_DISABLE_SCCACHE": "1",
        "CCACHE_DIR": PLACE_OF_CACHE,
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_COMPILERCHECK": "content",
        # Without the first two nothing is kept that reads a precompiled header; without the others, what is compiled in
        # the second in which a header was made is compiled twice. The time of a build is fixed: SOURCE_DATE_EPOCH.
        "CCACHE_SLOPPINESS": "pch_defines,time_macros,include_file_mtime,include_file_ctime",
        "CCACHE_STATSLOG": f"{PLACE}/build/{LOG}",
        **(AT_FIXED_PLACES if fixed_places else ANYWHERE),
        **remote,
        **({"CCACHE_PREFIX": "distcc", "DISTCC_HOSTS": hosts} if hosts else {}),
    }


def _storage_of_sccache(builder: BuilderSettings) -> dict[str, str]:
    if not builder.cache_remote:
        return {}
    parts = urlsplit(builder.cache_remote)
    if parts.scheme != "s3":
        return {"SCCACHE_REDIS_ENDPOINT" if parts.scheme.startswith("redis") else "SCCACHE_WEBDAV_ENDPOINT": REMOTE}
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    endpoint = {"SCCACHE_ENDPOINT": given["endpoint"]} if "endpoint" in given else {}
    plain = {"SCCACHE_S3_USE_SSL": "false"} if given.get("endpoint", "").startswith("http:") else {}
    prefix = {"SCCACHE_S3_KEY_PREFIX": parts.path.strip("/")} if parts.path.strip("/") else {}
    return {
        "SCCACHE_BUCKET": parts.netloc,
        "SCCACHE_REGION": given.get("region", "auto"),
        **endpoint,
        **plain,
        **prefix,
    }


def launcher(builder: BuilderSettings) -> tuple[str, ...]:
    """A launcher for the build's command that first checks for the tools of the settings, and prepares for them."""
    words: tuple[str, ...] = ("sh", "-c", SERVED, MARK) if builder.compiler_cache == "sccache" else ()
    if builder.distcc_hosts:
        words = ("sh", "-c", WITHOUT_HEADERS, MARK, *words)
    if builder.cache_remote:
        words = ("sh", "-c", IN_ANY_ORDER, MARK, *words)
    tools = (builder.compiler_cache,) if builder.compiler_cache in {"ccache", "sccache"} else ()
    for tool in (*tools, *(("ccache", "distcc") if builder.distcc_hosts else ())):
        words = ("sh", "-c", NEEDING, MARK, tool, *words)
    return words


def put_any_order(builder: BuilderSettings, build: Path, python: str) -> None:
    """Puts a ninja into a build folder, in front of the real one, that compiles in an order of its own.

    Only where machines share a cache: beginning together, each then finds what another has compiled.
    """
    if not builder.cache_remote:
        return
    programs = build / PROGRAMS
    if programs.is_symlink():  # that an interrupted build left, to lead us astray
        programs.unlink()
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    shutil.copy(ANY_ORDER, programs / ANY_ORDER.name)
    ninja = programs / "ninja"
    ninja.write_text(f'#!/bin/sh\nexec {shlex.quote(python)} -I "${{0%/*}}/{ANY_ORDER.name}" "$@"\n', "utf-8")
    ninja.chmod(0o755)


def needs_network(builder: BuilderSettings) -> bool:
    """Whether compile steps must reach other machines."""
    return bool(builder.cache_remote or builder.distcc_hosts)


def withheld(builder: BuilderSettings, environ: Mapping[str, str], *, port: int) -> dict[str, str]:
    """Variables that no plan shows: credentials of a bucket, and the port of this build's own server."""
    if builder.compiler_cache != "sccache":
        return {}
    bucket = (builder.cache_remote or "").startswith("s3:")
    found = {name: environ[name] for name in CREDENTIALS if bucket and name in environ}
    return {"SCCACHE_SERVER_PORT": str(port), **found}


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(lines: Sequence[str], builder: BuilderSettings) -> MachineError | None:
    """The error of a build that ended because a tool of the settings was not there; None where it was not that."""
    said = next((line.partition(": ")[2] for line in lines if line.startswith(f"{MARK}: ")), None)
    if said is None:
        return None
    tool = "sccache" if said.startswith("sccache") else said.split()[-1]
    if tool == "distcc":
        remedy = "install distcc where compilers run (builder.kind = local), or remove builder.distcc_hosts"
        return MachineError(f"{said} where compilers run", why="builder.distcc_hosts asks for it", remedy=remedy)
    if said.startswith("there is no"):
        remedy = f"install {tool} where compilers run, or set builder.compiler_cache = auto"
        return MachineError(
            f"{said} where compilers run", why=f"builder.compiler_cache = {builder.compiler_cache}", remedy=remedy
        )
    told = [line.removeprefix("sccache: ") for line in lines if "error:" in line or "caused by:" in line]
    why = " ".join(told)[:300] or "it does not say why"
    return MachineError(said, why=why, remedy="see that builder.cache_remote answers and lets us in, or remove it")


def statistics(build: Path) -> dict[str, int]:
    """Hits and misses of a build, from what the caches left in its folder."""
    log, counts = build / LOG, build / COUNTS
    if counts.is_file():
        found = json.loads(counts.read_text("utf-8"))["stats"]
        return {name: sum(found[f"cache_{name}"]["counts"].values()) for name in ("hits", "misses")}
    events = _events(log)
    return {"hits": events["direct_cache_hit"] + events["preprocessed_cache_hit"], "misses": events["cache_miss"]}


def _events(log: Path) -> Counter[str]:
    if not log.is_file():
        return Counter()
    return Counter(line for line in log.read_text("utf-8").splitlines() if not line.startswith("#"))


def size(cache: Path) -> float:
    """Size of a cache's folder in GB of 10^9 bytes."""
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1e9


def coldness(build: Path, *, before: float, after: float, remote: bool) -> str | None:
    """Why the compiler cache had next to no hits although earlier builds compiled the same; None where it had.

    ``before`` and ``after`` the build its folder has so many gigabytes; ``remote`` keeps results elsewhere as well.
    """
    counts = statistics(build)
    asked = counts["hits"] + counts["misses"]
    if asked and counts["hits"] > COLD * asked:
        return None
    events = _events(build / LOG)
    errors = sum(events[name] for name in ("remote_storage_error", "remote_storage_timeout"))
    if not asked:
        reason = "no compilation went through it: there is no ccache where compilers run"
    elif remote and errors:
        reason = f"its remote storage failed {errors} times"
    elif before < after / 10:
        reason = "its folder was all but empty: it was removed, or the state folder is another one"
    elif after > NEARLY * limits.COMPILER_CACHE_GIGABYTES:
        reason = f"it is full ({after:.1f} GB), and what those builds left has been removed"
    else:
        reason = (
            "the commands or the paths in them differ from those builds', as after a new state folder or environment"
        )
    return f"the compiler cache is unexpectedly cold ({counts['hits']} hits of {asked}): {reason}"
