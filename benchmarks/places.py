"""Where the benchmarks of compiling work: over miniature sources, or over a real release of vLLM."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import vllm_wheels
from benchmarks.common import Cost, Figures, arguments, cost_of, cost_of_command, report, workplace
from vllm_wheels.core import settings as configuration
from vllm_wheels.core.builders.docker_engine import answers
from vllm_wheels.core.engine.builder import PLACE, Builder, Command, Mount
from vllm_wheels.core.engine.graph import BuildGraph
from vllm_wheels.core.engine.store import Store
from vllm_wheels.core.host.machine import jobs
from vllm_wheels.core.operations.builds import build_graph
from vllm_wheels.core.target import Target
from vllm_wheels_tests.fixtures import ballast, releases, torchlike
from vllm_wheels_tests.fixtures.index import IndexServer, Offer, upstream_index

PACKAGE = Path(vllm_wheels.__file__).parent
ENTRY = "from vllm_wheels.cli import main; main()"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PLAIN_SECONDS = 6 * 3600.0
REQUIRES_PYTHON = ">=3.11,<3.15"
"""Of the releases that the miniatures are shaped like."""

DOWNLOADED = ("source", "onednn", "torch_env", "tools")
"""Kinds of artifacts that a benchmark of compiling may find in the store: making them compiles nothing."""


@dataclass(kw_only=True)
class Place:
    """Sources, settings and folders of a benchmark, and the plain builds that were measured in this run.

    Attributes:
        source: ``miniature`` or ``real``.
        folder: for everything.
        variables: settings, by environment variable.
        release: what is built.
        earlier: the release before it, with the same oneDNN.
        artifacts: state folder whose downloaded artifacts each new state begins with.
        earlier_state: what an earlier run left, to go on from.
        plains: costs of plain builds in this run, by release and Python.
        measured: other costs in this run, by name.
    """

    source: str
    folder: Path
    variables: Mapping[str, str]
    release: str
    earlier: str
    artifacts: Path | None = None
    earlier_state: Path | None = None
    plains: dict[tuple[str, str], Cost] = field(default_factory=dict)
    measured: dict[str, Cost] = field(default_factory=dict)
    _builders: list[Builder] = field(default_factory=list)

    def state(self, name: str) -> Path:
        """A new state folder, with nothing in it but downloaded artifacts."""
        state = self.folder / name
        state.mkdir()
        if self.artifacts:
            for kind in DOWNLOADED:
                linked(self.artifacts / "store" / kind, state / "store" / kind)
        return state

    def copy(self, state: Path, name: str) -> Path:
        """A state folder that goes on from where another one is."""
        copied = self.folder / name
        for part in ("store", "ccache"):
            linked(state / part, copied / part)
        for part in ("dagster", "images", "wheels"):
            if (state / part).is_dir():
                shutil.copytree(state / part, copied / part)
        return copied

    def environment(self, state: Path) -> dict[str, str]:
        """Settings that lead to a state folder."""
        return {
            **self.variables,
            "VLLM_WHEELS_STATE_FOLDER": str(state),
            "VLLM_WHEELS_OUTPUT_FOLDER": str(state / "wheels"),
        }

    def pipeline(
        self,
        state: Path,
        *words: str,
        code: Path = PACKAGE.parent,
        variables: Mapping[str, str] | None = None,
        accepted: tuple[int, ...] = (0,),
    ) -> Run:
        """Runs ``vllm-wheels`` with a state folder.

        Args:
            state: made by ``state`` or ``copy``.
            words: of the command line.
            code: folder of the package ``vllm_wheels`` that runs.
            variables: further settings.
            accepted: exit statuses that are no failure.
        """
        log = state / f"command-{len(list(state.glob('command-*.log')))}.log"
        environment = {**self.environment(state), **(variables or {}), "PYTHONPATH": str(code)}
        argv = [sys.executable, "-c", ENTRY, *words]
        cost = cost_of_command(argv, environment=environment, log=log, cwd=self.folder, accepted=accepted)
        return Run(cost=cost, lines=tuple(log.read_text("utf-8", errors="replace").splitlines()))

    def builds(self, state: Path) -> BuildGraph:
        """A build graph of this process with a state folder."""
        with _variables(self.environment(state)):
            return build_graph(configuration.load(), say=say)

    def builder(self) -> Builder:
        """Where compilers run."""
        if not self._builders:
            self._builders.append(self.builds(self.state("builder")).builder)
        return self._builders[0]

    def compiled(self, state: Path) -> dict[str, dict[str, int]]:
        """Hits and misses of the compiler cache, by compiled artifact, in the order of making."""
        found = reversed(list(Store(state / "store").artifacts("compiled")))
        return {str(number): dict(artifact.details["ccache"]) for number, artifact in enumerate(found)}

    def plain(self, release: str | None = None, python: str = PYTHON) -> Cost:
        """Cost of upstream's own ``setup.py bdist_wheel`` on the unpatched source, measured once in a run.

        With upstream's own defaults, where the pipeline would compile, with as many jobs, and without a compiler cache,
        which would only cost time: nothing is compiled twice in one build.
        """
        key = (release or self.release, python)
        if key not in self.plains:
            self.plains[key] = self._plain(*key)
            say(f"plain build of {key[0]} on {key[1]}: {self.plains[key]}")
        return self.plains[key]

    def _plain(self, release: str, python: str) -> Cost:
        state = self.state(f"plain-{release}-{python}")
        shop, target = self.builds(state), Target(release=release, python=python)
        trees = {kind: shop.ensure(kind, target).folder for kind in ("source", "onednn", "torch_env")}
        build = state / "build"
        shutil.copytree(trees["source"] / "tree", build / "source", symlinks=True)
        builder = shop.builder
        command = Command(
            argv=[builder.python(python), "setup.py", "bdist_wheel", "--dist-dir", f"{PLACE}/build/out"],
            env={
                "VLLM_TARGET_DEVICE": "cpu",
                "SETUPTOOLS_SCM_PRETEND_VERSION": release,
                "MAX_JOBS": str(jobs(shop.settings)),
                "FETCHCONTENT_SOURCE_DIR_ONEDNN": f"{PLACE}/onednn",
                "CCACHE_DISABLE": "1",
                "PYTHONPATH": f"{PLACE}/env",
                "PATH": f"{PLACE}/env/cmake/data/bin:{PLACE}/env/bin:{builder.path()}",
            },
            cwd=f"{PLACE}/build/source",
            mounts=[
                Mount(source=build, place=f"{PLACE}/build", writable=True),
                Mount(source=trees["onednn"] / "tree", place=f"{PLACE}/onednn"),
                Mount(source=trees["torch_env"] / "env", place=f"{PLACE}/env"),
            ],
        )

        def run() -> None:
            finished = builder.run(command, log=state / "plain.log", timeout_seconds=PLAIN_SECONDS)
            if finished.status:
                sys.exit(f"the plain build ended with status {finished.status}; see {state / 'plain.log'}")

        cost = cost_of(run)
        shutil.rmtree(build / "source")
        return cost


@dataclass(frozen=True, kw_only=True)
class Run:
    """A command that ended well.

    Attributes:
        cost: of it and all that it started.
        lines: of its output.
    """

    cost: Cost
    lines: tuple[str, ...]

    @property
    def compiled(self) -> int:
        """How many variants it compiled."""
        return sum(line.startswith("compile vLLM") for line in self.lines)


@contextmanager
def opened(folder: Path, *, real: bool, artifacts: Path | None = None, light: bool = False) -> Iterator[Place]:
    """The place of a benchmark: real where asked for, else miniatures behind a loopback index.

    Args:
        folder: to work in.
        real: vLLM 0.32.0 in place of miniatures.
        artifacts: state folder whose downloaded artifacts are used.
        light: miniatures without ballast, where compiling is not what is measured.
    """
    if real:
        yield Place(
            source="real",
            folder=folder,
            variables={"VLLM_WHEELS_SUBSTITUTES": "allow"},
            release="0.32.0",
            earlier="0.31.0",
            artifacts=artifacts.absolute() if artifacts else None,
        )
    else:
        with _miniature(folder, light=light) as place:
            yield place


IN_CONTAINERS = {"VLLM_WHEELS_BUILDER__KIND": "container", "VLLM_WHEELS_BUILDER__IMAGE": "debian"}
ON_HOST = {"VLLM_WHEELS_BUILDER__KIND": "local", "VLLM_WHEELS_BUILDER__MINIMUM_COMPILER": "12.2"}
"""Where no engine answers, ccache runs the preprocessor on every miss, and A and F are beyond their limits."""


@contextmanager
def _miniature(folder: Path, *, light: bool) -> Iterator[Place]:
    names = ("0.31.0", "0.32.0")
    archives = [
        releases.sdist("unified", name, folder / "index") if light else ballast.sdist(name, folder / "index")
        for name in names
    ]
    offers = [Offer(path=archive, requires_python=REQUIRES_PYTHON) for archive in archives]
    torchlike.cpu_wheels(folder / "torch", header=torchlike.HEADER if light else ballast.HEADER)
    with IndexServer({"vllm": offers}, upstream=upstream_index()) as index:
        variables = {
            "VLLM_WHEELS_INDEX__URL": index.url,
            "VLLM_WHEELS_INDEX__FIND_LINKS": json.dumps([str(folder / "torch")]),
            "VLLM_WHEELS_TORCH__BACKEND": "none",
            "VLLM_WHEELS_ONEDNN__ORIGIN": "path",
            "VLLM_WHEELS_ONEDNN__PATH": str(releases.ONEDNN if light else ballast.onednn(folder / "onednn")),
            **(ON_HOST if light or not answers() else IN_CONTAINERS),
        }
        yield Place(source="miniature", folder=folder, variables=variables, release=names[1], earlier=names[0])


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def linked(source: Path, target: Path) -> None:
    """Copies a folder of files that never change, by hard links."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)


def measured(measure: Callable[[Place], Figures], description: str, *, light: bool = False) -> None:
    """The program of one figure: reads its arguments, measures, reports."""
    given = arguments(description)
    with (
        workplace(given.folder) as folder,
        opened(folder, real=given.real, artifacts=given.artifacts, light=light) as place,
    ):
        place.earlier_state = given.state
        figures = measure(place)
    report(figures, source="real" if given.real else "miniature", save=given.save)


def say(line: str) -> None:
    """Keeps the figures on standard output to themselves."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
