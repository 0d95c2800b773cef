"""Compiles a variant: upstream's own build, once per set of sources, flags, compiler and torch.

The result is upstream's raw wheel with stripped extensions; ``wheel`` puts names, texts and Python-level patches on it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from vllm_wheels.core.builders import PLACE, Command, Mount
from vllm_wheels.core.errors import BuildError, CompilerKilledError
from vllm_wheels.core.machine import require_memory, require_room
from vllm_wheels.core.plan import PATH, PYTHON, STAGE, Bench, Invocation, Plan, Step, Verb, fingerprint
from vllm_wheels.core.repair import strip_wheel
from vllm_wheels.core.revisions import BUILD
from vllm_wheels.core.wheelfile import wheel_in

if TYPE_CHECKING:
    from vllm_wheels.core.runner import Finished
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.store import Piece
    from vllm_wheels.core.target import Target
    from vllm_wheels.core.upstream import Upstream
    from vllm_wheels.core.variants import Variant

COLD_SECONDS = 4500.0
"""First guess of a cold build on two cores (measured: 0.32.0 in 74.5 minutes with debug information)."""

GIGABYTES_PER_JOB = 2.0
BUILD_FOLDER_GIGABYTES = 4.0
READY = ".vllm-wheels-ready"
LOG = "build.log"
RAW = "raw"
STATISTICS = "ccache.log"
KILLED_SIGNS = (
    "Killed signal terminated program",
    "fatal error: Killed",
    "virtual memory exhausted",
    "out of memory allocating",
    "Cannot allocate memory",
)


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a compile needs; None stands for a piece that has yet to be made."""

    source: Piece | None
    onednn: Piece | None
    torch_env: Piece | None
    metadata: Piece | None
    builder: Mapping[str, Any] | None

    def missing(self) -> tuple[str, ...]:
        """Names of what has yet to be made."""
        return tuple(name for name, value in vars(self).items() if value is None)


def stable_abi(upstream: Upstream, python: str) -> str:
    """Python tag of the wheel, such as ``cp311``: the lowest Python that gets the same extensions as this one.

    That is the lowest that the release supports, unless it adds extensions from a later Python on (0.26 to 0.31).
    """
    later = [minimum for _, minimum in upstream.later_extensions if Version(minimum) <= Version(python)]
    lowest = max([upstream.pythons[0], *later], key=Version)
    return "cp" + lowest.replace(".", "")


def plan(
    target: Target,
    *,
    variant: Variant,
    upstream: Upstream | None,
    ingredients: Ingredients,
    settings: Settings,
    jobs: int,
) -> Plan:
    """The plan of piece ``compiled``.

    The Python is not among the inputs: a stable-ABI wheel serves every Python (design.md, "The graph").

    Args:
        target: release, Python and variant.
        variant: what to compile.
        upstream: what the tree demands; None while the source is missing.
        ingredients: pieces and the builder.
        settings: of the user.
        jobs: parallel compile jobs.
    """
    unknown = ingredients.missing()
    inputs = {} if unknown or upstream is None else _inputs(upstream, ingredients, target.python)
    folder = str(settings.state_folder / "build" / _folder_name(target, inputs))
    return Plan(
        piece="compiled",
        target=target,
        inputs=inputs,
        steps=_steps(target, variant, upstream, ingredients, settings, jobs, folder),
        unknown=unknown,
    )


def _inputs(upstream: Upstream, ingredients: Ingredients, python: str) -> dict[str, Any]:
    source, onednn, torch_env, metadata = (
        ingredients.source,
        ingredients.onednn,
        ingredients.torch_env,
        ingredients.metadata,
    )
    assert source is not None  # noqa: S101 - the caller looked for what is missing, here and below
    assert onednn is not None  # noqa: S101
    assert torch_env is not None  # noqa: S101
    assert metadata is not None  # noqa: S101
    return {
        "source": source.facts["tree_sha256"],
        "native": metadata.facts["native_sha256"],
        "onednn": onednn.fingerprint,
        "torch": torch_env.facts["torch"],
        "builder": ingredients.builder,
        "abi": stable_abi(upstream, python),
        "build": BUILD,
    }


def _folder_name(target: Target, inputs: Mapping[str, Any]) -> str:
    name = f"{target.variant}-{target.release}"
    return f"{name}-{fingerprint(inputs)[:12]}" if inputs else name


def _steps(  # noqa: PLR0917 - one caller, which is the public function above
    target: Target,
    variant: Variant,
    upstream: Upstream | None,
    ingredients: Ingredients,
    settings: Settings,
    jobs: int,
    folder: str,
) -> tuple[Step, ...]:
    folders = {
        "build": folder,
        "onednn": _inside(ingredients.onednn, "tree", "onednn"),
        "env": _inside(ingredients.torch_env, "env", "torch_env"),
        "ccache": str(settings.state_folder / "ccache"),
    }
    source = _inside(ingredients.source, "tree", "source")
    native = _inside(ingredients.metadata, "native", "metadata")
    return (
        Step(
            title=f"copy the source of vLLM {target.release} into the build folder and patch it for {variant.name}",
            verb="compile.tree",
            arguments={"source": source, "native": native, "build": folder},
            reads=(source, native),
            writes=(f"{folder}/source",),
            seconds=2,
        ),
        Step(
            title=f"compile vLLM {target.release} for {variant.name} with {jobs} jobs",
            verb="compile.run",
            arguments={
                "folders": folders,
                "python": target.python,
                "timeout_seconds": settings.builder.timeout_seconds,
            },
            reads=tuple(folders.values()),
            writes=(f"{STAGE}/{RAW}", f"{STAGE}/{LOG}"),
            seconds=COLD_SECONDS,
            gigabytes=jobs * GIGABYTES_PER_JOB,
            disk_gigabytes=BUILD_FOLDER_GIGABYTES,
            invocations=(_invocation(target, upstream, settings, jobs),),
        ),
        Step(
            title="strip the extensions",
            verb="compile.strip",
            arguments={"raw": f"{STAGE}/{RAW}"},
            reads=(f"{STAGE}/{RAW}",),
            writes=(f"{STAGE}/{RAW}",),
            seconds=10,
        ),
        *(() if settings.builder.keep_build_folder else (_removal(folder),)),
    )


def _removal(folder: str) -> Step:
    return Step(title="remove the build folder", verb="compile.clean", arguments={"build": folder}, seconds=1)


def _inside(piece: Piece | None, part: str, name: str) -> str:
    return str(piece.folder / part) if piece else f"<{part} of {name}, not made yet>"


def _invocation(target: Target, upstream: Upstream | None, settings: Settings, jobs: int) -> Invocation:
    abi = stable_abi(upstream, target.python) if upstream else "<abi of source, not made yet>"
    output = ("--dist-dir", f"{PLACE}/build/out")
    return Invocation(
        argv=(PYTHON, "setup.py", "bdist_wheel", f"--py-limited-api={abi}", *output),
        environment=_environment(target, jobs) | _shared_cache(settings),
        folder=f"{PLACE}/build/source",
    )


def _environment(target: Target, jobs: int) -> dict[str, str]:
    return {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_VERSION_OVERRIDE": f"{target.release}+cpu",
        # Before 0.11.1 upstream asks setuptools-scm alone, which finds no git history in a source archive.
        "SETUPTOOLS_SCM_PRETEND_VERSION": target.release,
        "CMAKE_BUILD_TYPE": BUILD["type"],
        "CMAKE_ARGS": BUILD["cmake_args"],
        "MAX_JOBS": str(jobs),
        "NINJA_STATUS": "[%f/%t] ",
        "FETCHCONTENT_SOURCE_DIR_ONEDNN": f"{PLACE}/onednn",
        "SOURCE_DATE_EPOCH": BUILD["epoch"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{PLACE}/env",
        "CCACHE_DIR": f"{PLACE}/ccache",
        "CCACHE_BASEDIR": PLACE,
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_STATSLOG": f"{PLACE}/build/{STATISTICS}",
        "PATH": f"{PLACE}/env/cmake/data/bin:{PLACE}/env/bin:{PATH}",
    }


def _shared_cache(settings: Settings) -> dict[str, str]:
    remote = settings.builder.ccache_remote
    # Both names: ccache 4.7 renamed the variable, and warns of neither.
    return {"CCACHE_REMOTE_STORAGE": remote, "CCACHE_SECONDARY_STORAGE": remote} if remote else {}


def copy_tree(bench: Bench, *, source: str, native: str, build: str) -> None:
    """Copies the source and lays the patched build files over it; a folder that an interrupted build left is taken up.

    Raises:
        DiskSpaceError: the disk is too full for a build.
        MemoryShortageError: there is too little memory for one job.
    """
    folder = bench.path(build)
    require_memory(GIGABYTES_PER_JOB)
    require_room(folder.parent, BUILD_FOLDER_GIGABYTES)
    if (folder / READY).is_file():
        bench.say("an earlier build was interrupted here: going on with what it compiled")
        return
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.path(source), folder / "source", symlinks=True)
    shutil.copytree(bench.path(native), folder / "source", dirs_exist_ok=True)
    (folder / READY).touch()


def run(
    bench: Bench,
    *,
    folders: Mapping[str, str],
    python: str,
    timeout_seconds: float,
    invocations: tuple[Invocation],
) -> dict[str, Any]:
    """Runs upstream's build without network and moves its raw wheel into the stage.

    Returns:
        Facts ``seconds`` and ``ccache`` (hits, misses).

    Raises:
        CompilerKilledError: the compiler was killed, nearly always for lack of memory.
        BuildError: the build failed; the reason names the first error of the log.
        StepTimeoutError: it took longer than ``timeout_seconds``.
    """
    build, ccache = Path(folders["build"]), Path(folders["ccache"])
    ccache.mkdir(parents=True, exist_ok=True)
    (build / STATISTICS).unlink(missing_ok=True)
    shutil.rmtree(build / "out", ignore_errors=True)
    log = bench.stage / LOG
    (invocation,) = invocations
    command = Command(
        argv=[bench.builder.python(python) if part == PYTHON else part for part in invocation.argv],
        env={name: value.replace(PATH, bench.builder.path()) for name, value in invocation.environment.items()},
        cwd=str(invocation.folder),
        mounts=[
            Mount(source=build, place=f"{PLACE}/build", writable=True),
            Mount(source=Path(folders["onednn"]), place=f"{PLACE}/onednn"),
            Mount(source=Path(folders["env"]), place=f"{PLACE}/env"),
            Mount(source=ccache, place=f"{PLACE}/ccache", writable=True),
        ],
        network=bench.settings.builder.ccache_remote is not None,
    )
    finished = bench.builder.run(command, log=log, timeout_seconds=timeout_seconds)
    if finished.status:
        shutil.copy(log, build / LOG)
        raise explained(finished, log=build / LOG)
    (build / "out").rename(bench.stage / RAW)
    return {"seconds": round(finished.seconds, 1), "ccache": statistics(build / STATISTICS)}


def explained(finished: Finished, *, log: Path) -> BuildError:
    """The error that a failed build ends with; its reason is the first error of the log."""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    if finished.status in (-9, 137) or any(sign in line for line in lines for sign in KILLED_SIGNS):
        why = "it was killed, which nearly always means that memory ran out"
        return CompilerKilledError(
            "the compiler was killed", why=why, remedy=f"run again with --max-jobs 1; what is compiled is kept ({log})"
        )
    first = next((line for line in lines if ": error:" in line or "CMake Error" in line or "fatal error" in line), "")
    why = (first or next((line for line in reversed(lines) if line.strip()), "it printed nothing")).strip()[:300]
    what = f"the build ended with status {finished.status}"
    return BuildError(what, why=why, remedy=f"read {log}; after a correction the next run continues")


def statistics(log: Path) -> dict[str, int]:
    """Counts a ccache statistics log (ccache manual, "stats_log"): hits and misses of this build alone."""
    if not log.is_file():
        return {"hits": 0, "misses": 0}
    found = Counter(line for line in log.read_text("utf-8").splitlines() if not line.startswith("#"))
    return {
        "hits": found["direct_cache_hit"] + found["preprocessed_cache_hit"],
        "misses": found["cache_miss"],
    }


def strip(bench: Bench, *, raw: str) -> dict[str, Any]:
    """Strips what debuggers need from the raw wheel's extensions; returns their sizes before and after, in bytes."""
    folder = bench.path(raw)
    return {"sizes": strip_wheel(wheel_in(folder), bench.builder, log=bench.stage / LOG)}


def clean(bench: Bench, *, build: str) -> None:
    """Removes the build folder, whose result is in the stage."""
    shutil.rmtree(bench.path(build))


VERBS: Mapping[str, Verb] = {
    "compile.tree": copy_tree,
    "compile.run": run,
    "compile.strip": strip,
    "compile.clean": clean,
}
