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

from vllm_wheels.core.artifacts.compiled import tcmalloc
from vllm_wheels.core.artifacts.compiled.configuration import BUILD
from vllm_wheels.core.artifacts.compiled.stripping import STRIP, strip_wheel
from vllm_wheels.core.artifacts.source.planning import upstream_of
from vllm_wheels.core.builders import compiler_cache
from vllm_wheels.core.builders.compiler_cache import REMOTE
from vllm_wheels.core.engine.builder import PLACE, Command, Mount
from vllm_wheels.core.engine.plan import ActionContext, Made, Plan, Step, digest
from vllm_wheels.core.engine.rule import PlanContext
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.errors import BuildError, CompilerKilledError
from vllm_wheels.core.formats.wheel_name import wheel_in
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.commands import PATH, PYTHON, STAGE, Invocation
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.machine import jobs, require_memory, require_room
from vllm_wheels.core.patches.preloads import preloads_tcmalloc

if TYPE_CHECKING:
    from vllm_wheels.core.host.processes import Finished
    from vllm_wheels.core.patches.upstream import Upstream
    from vllm_wheels.core.target import Target

COLD_SECONDS, COLD_JOBS = 1300.0, 2
"""First guess of a cold build, and with how many jobs (measured: 0.32.0 in 17 to 22 minutes on two busy cores)."""

JOBS = "MAX_JOBS"
NEEDED = ("source", "onednn", "torch_env", "native")

READY = ".vllm-wheels-ready"
LOG = "build.log"
RAW = "raw"
KILLED_SIGNS = (
    "Killed signal terminated program",
    "fatal error: Killed",
    "virtual memory exhausted",
    "out of memory allocating",
    "Cannot allocate memory",
    "failed to map segment from shared object",
)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Folders of this host that a compile works with."""

    build: str
    onednn: str
    env: str
    cache: str


@dataclass(frozen=True, kw_only=True)
class Copying:
    """Arguments of ``copy_tree``."""

    source: str
    native: str
    build: str


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """Arguments of ``run``.

    Attributes:
        same_toolchain: what builds share that compile the same oneDNN with the same compiler.
        deviations: of what is compiled from the release's own pins; the wheel is not for release if there are any.
    """

    folders: Folders
    python: str
    timeout_seconds: float
    same_toolchain: Mapping[str, Any]
    deviations: tuple[str, ...]


def stable_abi(upstream: Upstream, python: str) -> str:
    """Python tag of the wheel, such as ``cp311``: the lowest Python that gets the same extensions as this one.

    That is the lowest that the release supports, unless it adds extensions from a later Python on (0.26 to 0.31).
    """
    later = [minimum for _, minimum in upstream.later_extensions if Version(minimum) <= Version(python)]
    lowest = max([upstream.pythons[0], *later], key=Version)
    return "cp" + lowest.replace(".", "")


def plan(context: PlanContext) -> Plan:
    """The plan of artifact ``compiled``.

    The Python is not among the inputs: a stable-ABI wheel serves every Python (design.md, "The graph").

    Raises:
        SettingsError: the settings of the compiler's cache contradict each other.
    """
    compiler_cache.check(context.settings.builder)
    builder = context.find_builder()
    upstream = upstream_of(context)
    toolchain = builder.identity() if builder else {"kind": "container"}  # Of which the image has yet to be made.
    inputs: dict[str, Any] = {}
    if upstream and builder:
        inputs = {"builder": toolchain, "abi": stable_abi(upstream, context.target.python)}
    contained = toolchain["kind"] == "container"
    draft = _Draft(context=context, inputs=inputs, contained=contained, jobs=jobs(context.settings))
    without = draft.without_tcmalloc()
    return Plan(
        artifact="compiled",
        target=context.target,
        inputs=inputs,
        steps=draft.steps(take_tcmalloc=without is None),
        notices=(without,) if without else (),
        unknown=() if inputs else ("source",) if builder else ("builder",),
    )


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """What the steps of a compile are written from; inputs are empty while something is not known."""

    context: PlanContext
    inputs: Mapping[str, Any]
    contained: bool
    jobs: int

    def without_tcmalloc(self) -> str | None:
        """Why the wheel comes without tcmalloc; None where it is taken out of the builder image."""
        source = self.context.known.get("source")
        if source and not preloads_tcmalloc(source.folder / "tree"):
            return tcmalloc.WITHOUT_CODE.format(release=self.context.target.release)
        return None if self.contained else tcmalloc.WITHOUT_PACKAGE

    def steps(self, *, take_tcmalloc: bool) -> tuple[Step[Any], ...]:
        settings, release, name = self.context.settings, self.context.target.release, self.context.variant.name
        folders = self._folders()
        source, native = self._inside("source", "tree"), self._inside("native", "native")
        return (
            Step(
                title=f"copy the source of vLLM {release} into the build folder and patch it for {name}",
                action=copy_tree,
                arguments=Copying(source=source, native=native, build=folders.build),
                reads=(source, native),
                writes=(f"{folders.build}/source",),
                seconds=2,
            ),
            Step(
                title=f"compile vLLM {release} for {name} with {self.jobs} jobs",
                action=run,
                arguments=Compiling(
                    folders=folders,
                    python=self.context.target.python,
                    timeout_seconds=settings.builder.timeout_seconds,
                    same_toolchain=self._same_toolchain(),
                    deviations=self._deviations(),
                ),
                reads=(folders.build, folders.onednn, folders.env, folders.cache),
                writes=(f"{STAGE}/{RAW}", f"{STAGE}/{LOG}"),
                seconds=COLD_SECONDS * COLD_JOBS / self.jobs,
                gigabytes=self.jobs * settings.builder.gigabytes_per_job,
                disk_gigabytes=limits.BUILD_FOLDER_GIGABYTES,
                invocations=(self._invocation(),),
            ),
            Step(
                title="strip the extensions",
                action=strip,
                arguments=f"{STAGE}/{RAW}",
                reads=(f"{STAGE}/{RAW}",),
                writes=(f"{STAGE}/{RAW}",),
                seconds=10,
                invocations=(STRIP,),
            ),
            *((tcmalloc.taking(self.inputs["builder"]["image"]),) if take_tcmalloc and self.inputs else ()),
            *(() if settings.builder.keep_build_folder else (_removal(folders.build),)),
        )

    def _folders(self) -> Folders:
        state = self.context.settings.state_folder
        return Folders(
            build=str(state / "build" / self._folder_name()),
            onednn=self._inside("onednn", "tree"),
            env=self._inside("torch_env", "env"),
            cache=str(state / compiler_cache.folder_name(self.context.settings)),
        )

    def _folder_name(self) -> str:
        target, known = self.context.target, self.context.known
        name = f"{target.variant}-{target.release}"
        if not self.inputs or any(kind not in known for kind in NEEDED):
            return name
        return f"{name}-{digest({**self.inputs, **{kind: known[kind].version for kind in NEEDED}})[:12]}"

    def _inside(self, kind: str, part: str) -> str:
        artifact = self.context.known.get(kind)
        return str(artifact.folder / part) if artifact else f"<{part} of {kind}, not made yet>"

    def _same_toolchain(self) -> Mapping[str, Any]:
        known = self.context.known
        shared = {kind: known[kind].version for kind in ("source", "onednn", "torch_env") if kind in known}
        return {"needs": shared, "builder": self.inputs["builder"]} if self.inputs else {}

    def _deviations(self) -> tuple[str, ...]:
        known = (self.context.known[kind] for kind in NEEDED if kind in self.context.known)
        return tuple(line for artifact in known for line in artifact.facts.get("deviations", ()))

    def _invocation(self) -> Invocation:
        settings, target = self.context.settings, self.context.target
        abi = self.inputs.get("abi") or "<abi of source, not made yet>"
        output = ("--dist-dir", f"{PLACE}/build/out")
        return Invocation(
            argv=(PYTHON, "setup.py", "bdist_wheel", f"--py-limited-api={abi}", *output),
            launcher=compiler_cache.launcher(settings.builder),
            environment=_environment(target, self.jobs)
            | compiler_cache.environment(settings.builder, fixed_places=self.contained),
            folder=f"{PLACE}/build/source",
            place="builder",
        )


def _removal(folder: str) -> Step[str]:
    return Step(title="remove the build folder", action=clean, arguments=folder, seconds=1)


def _environment(target: Target, jobs: int) -> dict[str, str]:
    return {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_VERSION_OVERRIDE": f"{target.release}+cpu",
        # Before 0.11.1 upstream asks setuptools-scm alone, which finds no git history in a source archive.
        "SETUPTOOLS_SCM_PRETEND_VERSION": target.release,
        "CMAKE_BUILD_TYPE": BUILD["type"],
        "CMAKE_ARGS": BUILD["cmake_args"],
        JOBS: str(jobs),
        "NINJA_STATUS": "[%f/%t] ",
        "FETCHCONTENT_SOURCE_DIR_ONEDNN": f"{PLACE}/onednn",
        "SOURCE_DATE_EPOCH": BUILD["epoch"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{PLACE}/env",
        "PATH": f"{PLACE}/env/cmake/data/bin:{PLACE}/env/bin:{PATH}",
    }


def copy_tree(context: ActionContext, arguments: Copying) -> None:
    """Copies the source and lays the patched build files over it; a folder that an interrupted build left is taken up.

    Raises:
        DiskSpaceError: the disk is too full for a build.
        MemoryShortageError: there is too little memory for one job.
    """
    folder = context.path(arguments.build)
    require_memory(context.settings.builder.gigabytes_per_job)
    require_room(folder.parent, limits.BUILD_FOLDER_GIGABYTES)
    if (folder / READY).is_file():
        context.say("an earlier build was interrupted here: going on with what it compiled")
        return
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(context.path(arguments.source), folder / "source", symlinks=True)
    shutil.copytree(context.path(arguments.native), folder / "source", dirs_exist_ok=True)
    (folder / READY).touch()


def run(context: ActionContext, arguments: Compiling) -> Made:
    """Runs upstream's build without network and moves its raw wheel into the stage.

    Returns:
        Fact ``deviations``; details ``seconds``, ``ccache`` (hits, misses) and ``same_toolchain``.

    Raises:
        CompilerKilledError: the compiler was killed also as the only job, nearly always for lack of memory.
        BuildError: the build failed; the reason names the first error of the log.
        StepTimeoutError: it took longer than ``timeout_seconds``.
        MachineError: a tool of the compiler cache is missing, or its storage does not answer.
    """
    folders = arguments.folders
    build, cache = Path(folders.build), Path(folders.cache)
    cache.mkdir(parents=True, exist_ok=True)
    for left in (compiler_cache.LOG, compiler_cache.COUNTS):
        (build / left).unlink(missing_ok=True)
    shutil.rmtree(build / "out", ignore_errors=True)
    builder = context.settings.builder
    before = compiler_cache.size(cache)
    (invocation,) = context.invocations
    python = context.builder.python(arguments.python)
    compiler_cache.put_any_order(builder, build, python)
    filled = invocation.filled({PYTHON: python, PATH: context.builder.path(), REMOTE: builder.cache_remote or ""})
    seconds = _with_fewer_and_fewer_jobs(context, filled, folders, arguments.timeout_seconds)
    _refuse_links(build / "out")
    (build / "out").rename(context.stage / RAW)
    if _was_compiled(context, arguments.same_toolchain) and builder.compiler_cache != "none":
        after, remote = compiler_cache.size(cache), builder.cache_remote is not None
        if reason := compiler_cache.coldness(build, before=before, after=after, remote=remote):
            context.say(f"NOTICE: {reason}")
    counted = {"seconds": round(seconds, 1), "ccache": compiler_cache.statistics(build)}
    return Made(
        facts={"deviations": arguments.deviations}, details={**counted, "same_toolchain": arguments.same_toolchain}
    )


def _refuse_links(made: Path) -> None:
    """Takes nothing but folders and plain files from what foreign code made: a link would lead this program astray."""
    for path in (made, *made.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            what = f"the build left {path.name}, which is neither a folder nor a plain file"
            raise BuildError(
                what, why="it is a link, or a device", remedy="look into its setup.py, and report it upstream"
            )


def _with_fewer_and_fewer_jobs(
    context: ActionContext, invocation: Invocation, folders: Folders, timeout_seconds: float
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
        kept = Path(folders.build) / LOG
        # What was built may have put a link there, to be written through.
        kept.unlink(missing_ok=True)
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


def _command(context: ActionContext, invocation: Invocation, folders: Folders) -> Command:
    builder = context.settings.builder
    withheld = compiler_cache.withheld(builder, os.environ, port=compiler_cache.free_port())
    return Command.of(
        replace(invocation, environment={**invocation.environment, **withheld}),
        mounts=[
            Mount(source=Path(folders.build), place=f"{PLACE}/build", writable=True),
            Mount(source=Path(folders.onednn), place=f"{PLACE}/onednn"),
            Mount(source=Path(folders.env), place=f"{PLACE}/env"),
            Mount(source=Path(folders.cache), place=compiler_cache.PLACE_OF_CACHE, writable=True, lent=True),
        ],
        network=compiler_cache.needs_network(builder),
        gigabytes=builder.memory_gigabytes and builder.memory_gigabytes / builder.side_by_side,
    )


def _was_compiled(context: ActionContext, same_toolchain: Mapping[str, Any]) -> bool:
    """Whether an earlier build compiled the same oneDNN for the same release with the same compiler."""
    earlier = Store(context.settings.state_folder / "store").artifacts("compiled")
    return bool(same_toolchain) and any(each.details["same_toolchain"] == same_toolchain for each in earlier)


def explained(finished: Finished, lines: Sequence[str], *, log: Path) -> BuildError:
    """The error that a failed build ends with; its reason is the first error among the lines of its output."""
    if finished.status in (-9, 137) or any(sign in line for line in lines for sign in KILLED_SIGNS):
        why = "it was killed, also as the only job, which nearly always means that memory ran out"
        remedy = f"free or add memory (some files need 2 GB), then run again; what is compiled is kept ({log})"
        return CompilerKilledError("the compiler was killed", why=why, remedy=remedy)
    first = next((line for line in lines if ": error:" in line or "CMake Error" in line or "fatal error" in line), "")
    why = (first or next((line for line in reversed(lines) if line.strip()), "it printed nothing")).strip()[:300]
    what = f"the build ended with status {finished.status}"
    return BuildError(what, why=why, remedy=f"read {log}; after a correction the next run continues")


def strip(context: ActionContext, raw: str) -> Made:
    """Strips the raw wheel's extensions; returns fact ``sha256`` of the wheel and detail ``sizes`` in bytes."""
    (invocation,) = context.invocations
    wheel = wheel_in(context.path(raw))
    sizes = strip_wheel(wheel, context.builder, invocation=invocation, log=context.stage / LOG)
    return Made(facts={"sha256": sha256_of(wheel_in(context.path(raw)))}, details={"sizes": sizes})


def clean(context: ActionContext, build: str) -> None:
    """Removes the build folder, whose result is in the stage."""
    shutil.rmtree(context.path(build))
