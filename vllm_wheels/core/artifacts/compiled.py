"""Compiles a variant: upstream's own build, once per set of sources, flags, compiler and torch.

The result is upstream's raw wheel with stripped extensions; ``wheel`` puts names, texts and Python-level patches on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from vllm_wheels.core.artifacts.wheel.repair import STRIP, strip_wheel
from vllm_wheels.core.builders import PLACE, Command, Mount, compiler_cache
from vllm_wheels.core.builders.compiler_cache import REMOTE
from vllm_wheels.core.engine.plan import Action, ActionContext, Plan, Step, digest
from vllm_wheels.core.engine.revisions import BUILD
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import BuildError, CompilerKilledError
from vllm_wheels.core.formats.wheelfile import wheel_in
from vllm_wheels.core.host.commands import PATH, PYTHON, STAGE, Invocation
from vllm_wheels.core.host.compile_slots import compile_slot
from vllm_wheels.core.host.machine import require_memory, require_room

if TYPE_CHECKING:
    from vllm_wheels.core.engine.store import Artifact
    from vllm_wheels.core.host.processes import Finished
    from vllm_wheels.core.patches.upstream import Upstream
    from vllm_wheels.core.settings import Settings
    from vllm_wheels.core.target import Target
    from vllm_wheels.core.variants import Variant

COLD_SECONDS, COLD_JOBS = 1300.0, 2
"""First guess of a cold build, and with how many jobs (measured: 0.32.0 in 17 to 22 minutes on two busy cores)."""

BUILD_FOLDER_GIGABYTES = 4.0
JOBS = "MAX_JOBS"
SAME_TOOLCHAIN = ("source", "onednn", "torch", "builder", "build")
"""Inputs that two builds share which compile the same oneDNN with the same compiler, whatever their variants."""

READY = ".vllm-wheels-ready"
LOG = "build.log"
RAW = "raw"
CACHE = "ccache"
"""Folder of ccache's cache below the state folder."""

KILLED_SIGNS = (
    "Killed signal terminated program",
    "fatal error: Killed",
    "virtual memory exhausted",
    "out of memory allocating",
    "Cannot allocate memory",
    "failed to map segment from shared object",
)


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a compile needs; None stands for an artifact that has yet to be made."""

    source: Artifact | None
    onednn: Artifact | None
    torch_env: Artifact | None
    metadata: Artifact | None
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
    """The plan of artifact ``compiled``.

    The Python is not among the inputs: a stable-ABI wheel serves every Python (design.md, "The graph").

    Args:
        target: release, Python and variant.
        variant: what to compile.
        upstream: what the tree demands; None while the source is missing.
        ingredients: artifacts and the builder.
        settings: of the user.
        jobs: parallel compile jobs.

    Raises:
        SettingsError: the settings of the compiler's cache contradict each other.
    """
    compiler_cache.check(settings.builder)
    unknown = ingredients.missing()
    inputs = {} if unknown or upstream is None else _inputs(upstream, ingredients, target.python)
    return Plan(
        artifact="compiled",
        target=target,
        inputs=inputs,
        steps=_steps(target, variant, upstream, ingredients, settings, jobs, inputs),
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
        "onednn": onednn.key,
        "torch": torch_env.facts["torch"],
        "builder": ingredients.builder,
        "abi": stable_abi(upstream, python),
        "build": BUILD,
    }


def _folder_name(target: Target, inputs: Mapping[str, Any]) -> str:
    name = f"{target.variant}-{target.release}"
    return f"{name}-{digest(inputs)[:12]}" if inputs else name


def _steps(  # noqa: PLR0917 - one caller, which is the public function above
    target: Target,
    variant: Variant,
    upstream: Upstream | None,
    ingredients: Ingredients,
    settings: Settings,
    jobs: int,
    inputs: Mapping[str, Any],
) -> tuple[Step, ...]:
    folder = str(settings.state_folder / "build" / _folder_name(target, inputs))
    folders = {
        "build": folder,
        "onednn": _inside(ingredients.onednn, "tree", "onednn"),
        "env": _inside(ingredients.torch_env, "env", "torch_env"),
        "ccache": str(settings.state_folder / ("sccache" if settings.builder.compiler_cache == "sccache" else CACHE)),
    }
    source = _inside(ingredients.source, "tree", "source")
    native = _inside(ingredients.metadata, "native", "metadata")
    return (
        Step(
            title=f"copy the source of vLLM {target.release} into the build folder and patch it for {variant.name}",
            action="compile.tree",
            arguments={"source": source, "native": native, "build": folder},
            reads=(source, native),
            writes=(f"{folder}/source",),
            seconds=2,
        ),
        Step(
            title=f"compile vLLM {target.release} for {variant.name} with {jobs} jobs",
            action="compile.run",
            arguments={
                "folders": folders,
                "python": target.python,
                "timeout_seconds": settings.builder.timeout_seconds,
                "same_toolchain": {name: inputs[name] for name in SAME_TOOLCHAIN} if inputs else {},
            },
            reads=tuple(folders.values()),
            writes=(f"{STAGE}/{RAW}", f"{STAGE}/{LOG}"),
            seconds=COLD_SECONDS * COLD_JOBS / jobs,
            gigabytes=jobs * settings.builder.gigabytes_per_job,
            disk_gigabytes=BUILD_FOLDER_GIGABYTES,
            invocations=(_invocation(target, upstream, ingredients, settings, jobs),),
        ),
        Step(
            title="strip the extensions",
            action="compile.strip",
            arguments={"raw": f"{STAGE}/{RAW}"},
            reads=(f"{STAGE}/{RAW}",),
            writes=(f"{STAGE}/{RAW}",),
            seconds=10,
            invocations=(STRIP,),
        ),
        *(() if settings.builder.keep_build_folder else (_removal(folder),)),
    )


def _removal(folder: str) -> Step:
    return Step(title="remove the build folder", action="compile.clean", arguments={"build": folder}, seconds=1)


def _inside(artifact: Artifact | None, part: str, name: str) -> str:
    return str(artifact.folder / part) if artifact else f"<{part} of {name}, not made yet>"


def _invocation(
    target: Target, upstream: Upstream | None, ingredients: Ingredients, settings: Settings, jobs: int
) -> Invocation:
    abi = stable_abi(upstream, target.python) if upstream else "<abi of source, not made yet>"
    output = ("--dist-dir", f"{PLACE}/build/out")
    # A builder that is not there yet is a container whose image has yet to be made.
    fixed = (ingredients.builder or {}).get("kind", "container") == "container"
    return Invocation(
        argv=compiler_cache.command(
            settings.builder, (PYTHON, "setup.py", "bdist_wheel", f"--py-limited-api={abi}", *output)
        ),
        environment=_environment(target, jobs, alone=not settings.builder.distcc_hosts)
        | compiler_cache.environment(settings.builder, fixed_places=fixed),
        folder=f"{PLACE}/build/source",
        place="builder",
    )


def _environment(target: Target, jobs: int, *, alone: bool) -> dict[str, str]:
    # Other hosts cannot read this one's precompiled headers; without them the objects are the same.
    cmake_args = BUILD["cmake_args"] if alone else f"{BUILD['cmake_args']} -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON"
    return {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_VERSION_OVERRIDE": f"{target.release}+cpu",
        # Before 0.11.1 upstream asks setuptools-scm alone, which finds no git history in a source archive.
        "SETUPTOOLS_SCM_PRETEND_VERSION": target.release,
        "CMAKE_BUILD_TYPE": BUILD["type"],
        "CMAKE_ARGS": cmake_args,
        JOBS: str(jobs),
        "NINJA_STATUS": "[%f/%t] ",
        "FETCHCONTENT_SOURCE_DIR_ONEDNN": f"{PLACE}/onednn",
        "SOURCE_DATE_EPOCH": BUILD["epoch"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{PLACE}/env",
        "PATH": f"{PLACE}/env/cmake/data/bin:{PLACE}/env/bin:{PATH}",
    }


def copy_tree(context: ActionContext, *, source: str, native: str, build: str) -> None:
    """Copies the source and lays the patched build files over it; a folder that an interrupted build left is taken up.

    Raises:
        DiskSpaceError: the disk is too full for a build.
        MemoryShortageError: there is too little memory for one job.
    """
    folder = context.path(build)
    require_memory(context.settings.builder.gigabytes_per_job)
    require_room(folder.parent, BUILD_FOLDER_GIGABYTES)
    if (folder / READY).is_file():
        context.say("an earlier build was interrupted here: going on with what it compiled")
        return
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(context.path(source), folder / "source", symlinks=True)
    shutil.copytree(context.path(native), folder / "source", dirs_exist_ok=True)
    (folder / READY).touch()


def run(
    context: ActionContext,
    *,
    folders: Mapping[str, str],
    python: str,
    timeout_seconds: float,
    same_toolchain: Mapping[str, Any],
    invocations: tuple[Invocation, ...],
) -> dict[str, Any]:
    """Runs upstream's build without network and moves its raw wheel into the stage.

    Returns:
        Facts ``seconds`` and ``ccache`` (hits, misses).

    Raises:
        CompilerKilledError: the compiler was killed also as the only job, nearly always for lack of memory.
        BuildError: the build failed; the reason names the first error of the log.
        StepTimeoutError: it took longer than ``timeout_seconds``.
        StoreBusyError: other compiles never made room for this one.
        MachineError: a tool of the compiler cache is missing, or its storage does not answer.
    """
    build, cache = Path(folders["build"]), Path(folders["ccache"])
    cache.mkdir(parents=True, exist_ok=True)
    for left in (compiler_cache.LOG, compiler_cache.COUNTS):
        (build / left).unlink(missing_ok=True)
    shutil.rmtree(build / "out", ignore_errors=True)
    builder = context.settings.builder
    before = compiler_cache.size(cache)
    (invocation,) = invocations
    filled = invocation.filled(
        {PYTHON: context.builder.python(python), PATH: context.builder.path(), REMOTE: builder.cache_remote or ""}
    )
    with compile_slot(context.settings, context.say):
        seconds = _with_fewer_and_fewer_jobs(context, filled, folders, timeout_seconds)
    (build / "out").rename(context.stage / RAW)
    if _was_compiled(context, same_toolchain) and builder.compiler_cache != "none":
        after, remote = compiler_cache.size(cache), builder.cache_remote is not None
        if reason := compiler_cache.coldness(build, before=before, after=after, remote=remote):
            context.say(f"NOTICE: {reason}")
    return {"seconds": round(seconds, 1), "ccache": compiler_cache.statistics(build)}


def _with_fewer_and_fewer_jobs(
    context: ActionContext, invocation: Invocation, folders: Mapping[str, str], timeout_seconds: float
) -> float:
    """Compiles; each time memory runs out, goes on with half as many jobs. Returns the seconds of all attempts."""
    seconds, log = 0.0, context.stage / LOG
    jobs = int(invocation.environment[JOBS])
    while True:
        environment = {**invocation.environment, JOBS: str(jobs)}
        read = log.stat().st_size if log.exists() else 0
        command = _command(context, replace(invocation, environment=environment), folders)
        finished = context.builder.run(command, log=log, timeout_seconds=timeout_seconds)
        seconds += finished.seconds
        if not finished.status:
            return seconds
        kept = Path(folders["build"]) / LOG
        shutil.copy(log, kept)
        with log.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(read)
            lines = stream.read().splitlines()
        error = compiler_cache.missing(lines, context.settings.builder) or explained(finished, lines, log=kept)
        if not isinstance(error, CompilerKilledError) or jobs == 1:
            raise error
        jobs //= 2
        number = "one job" if jobs == 1 else f"{jobs} jobs"
        context.say(
            f"NOTICE: the compiler was killed, as memory ran out: going on with {number}; what is compiled is kept"
        )


def _command(context: ActionContext, invocation: Invocation, folders: Mapping[str, str]) -> Command:
    builder = context.settings.builder
    withheld = compiler_cache.withheld(builder, os.environ, port=compiler_cache.free_port())
    return Command.of(
        replace(invocation, environment={**invocation.environment, **withheld}),
        mounts=[
            Mount(source=Path(folders["build"]), place=f"{PLACE}/build", writable=True),
            Mount(source=Path(folders["onednn"]), place=f"{PLACE}/onednn"),
            Mount(source=Path(folders["env"]), place=f"{PLACE}/env"),
            Mount(source=Path(folders["ccache"]), place=compiler_cache.PLACE_OF_CACHE, writable=True),
        ],
        network=compiler_cache.needs_network(builder),
        gigabytes=builder.memory_gigabytes and builder.memory_gigabytes / builder.side_by_side,
    )


def _was_compiled(context: ActionContext, same_toolchain: Mapping[str, Any]) -> bool:
    """Did an earlier build compile the same oneDNN for the same release with the same compiler?"""
    earlier = Store(context.settings.state_folder / "store").artifacts("compiled")
    return bool(same_toolchain) and any(
        all(artifact.inputs[name] == value for name, value in same_toolchain.items()) for artifact in earlier
    )


def explained(finished: Finished, lines: Sequence[str], *, log: Path) -> BuildError:
    """The error that a failed build ends with; its reason is the first error among the lines of its output.

    Args:
        finished: what became of it.
        lines: its output.
        log: where a user finds that.
    """
    if finished.status in (-9, 137) or any(sign in line for line in lines for sign in KILLED_SIGNS):
        why = "it was killed, also as the only job, which nearly always means that memory ran out"
        remedy = f"free or add memory (some files need 2 GB), then run again; what is compiled is kept ({log})"
        return CompilerKilledError("the compiler was killed", why=why, remedy=remedy)
    first = next((line for line in lines if ": error:" in line or "CMake Error" in line or "fatal error" in line), "")
    why = (first or next((line for line in reversed(lines) if line.strip()), "it printed nothing")).strip()[:300]
    what = f"the build ended with status {finished.status}"
    return BuildError(what, why=why, remedy=f"read {log}; after a correction the next run continues")


def strip(context: ActionContext, *, raw: str, invocations: tuple[Invocation, ...]) -> dict[str, Any]:
    """Strips what debuggers need from the raw wheel's extensions; returns their sizes before and after, in bytes."""
    folder = context.path(raw)
    (invocation,) = invocations
    sizes = strip_wheel(wheel_in(folder), context.builder, invocation=invocation, log=context.stage / LOG)
    return {"sizes": sizes}


def clean(context: ActionContext, *, build: str) -> None:
    """Removes the build folder, whose result is in the stage."""
    shutil.rmtree(context.path(build))


ACTIONS: Mapping[str, Action] = {
    "compile.tree": copy_tree,
    "compile.run": run,
    "compile.strip": strip,
    "compile.clean": clean,
}
