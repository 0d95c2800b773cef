"""Sets a bare machine up for compiling in containers: packages, and an engine that runs."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.builders import docker_engine as engine
from vllm_wheels.core.errors import EngineUnreachableError, MachineError
from vllm_wheels.core.host.machine import ROOT, distribution, packages, program
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.settings import Settings

INSTALL_SECONDS = 1800.0
START_SECONDS = 60.0
POLL_SECONDS = 0.5
LAST_LINES = 3
PID_FILES = {"dockerd": "var/run/docker.pid", "containerd": "var/run/docker/containerd/containerd.pid"}
"""Where an engine keeps the numbers of its processes, by the name of the program."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """What compiling in containers needs of a machine; an engine that it ``starts`` answers some time afterwards."""

    title: str
    argv: tuple[str, ...]
    present: bool
    starts: bool = False


def items(settings: Settings, *, root: Path = ROOT) -> tuple[Item, ...]:
    """All that is needed, in the order in which it is brought about.

    Raises:
        MachineError: the distribution is not Debian or one derived from it.
    """
    answers = engine.answers()
    lacking = _lacking_packages(answers=answers, root=root)
    install = (*shlex.split(packages()["apt"]["command"]), *(lacking or packages()["apt"]["engine"]))
    return (
        Item(title="list of available packages", argv=("apt-get", "update", "-q"), present=not lacking),
        Item(title=f"packages {', '.join(lacking)}" if lacking else "packages", argv=install, present=not lacking),
        *_leftovers(root, answers=answers),
        Item(title="running container engine", argv=_start(settings, root), present=answers, starts=True),
    )


def missing(settings: Settings, *, root: Path = ROOT) -> list[Item]:
    """What is needed and not there; see ``items``."""
    return [item for item in items(settings, root=root) if not item.present]


def set_up(settings: Settings, say: Callable[[str], None], *, runner: Runner | None = None) -> None:
    """Brings about what is missing, each said before it is done; nothing is done that is there already.

    Raises:
        EngineUnreachableError: the engine does not answer a minute after its start, or DOCKER_HOST names another.
        MachineError: this process is not root, a package cannot be installed, or the distribution is not known.
    """
    todo = missing(settings)
    if not todo:
        say("nothing to set up: the packages are installed and a container engine answers")
        return
    _refuse_foreign_engine(todo)
    _require_root(todo)
    settings.state_folder.mkdir(parents=True, exist_ok=True)
    for item in todo:
        say(f"setting up: {item.title}: {shlex.join(item.argv)}")
        _carry_out(item, log=settings.state_folder / "set-up.log", runner=runner or Runner())
        if item.starts:
            wait_for_engine(log=engine_log(settings))
    say("set up: the packages are installed and a container engine answers")


def wait_for_engine(*, log: Path, seconds: float = START_SECONDS) -> None:
    """Waits until the engine answers.

    Raises:
        EngineUnreachableError: it does not within ``seconds``; tells the last lines of its log.
    """
    deadline = time.monotonic() + seconds
    while not engine.answers():
        if time.monotonic() > deadline:
            what = f"the container engine was started and does not answer after {seconds:.0f} s"
            last = log.read_text("utf-8", errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
            why = " / ".join(last) or "it wrote no log"
            raise EngineUnreachableError(
                what, why=why, remedy=f"see {log} or journalctl -u docker; or builder.kind = local"
            )
        time.sleep(POLL_SECONDS)


def engine_log(settings: Settings) -> Path:
    """Log of an engine that ``set_up`` starts where there is no systemd."""
    return settings.state_folder / "dockerd.log"


def _lacking_packages(*, answers: bool, root: Path) -> list[str]:
    manager = distribution(root=root).manager
    table = packages().get(manager or "", {})
    lacking = [package for package, sign in table.get("engine", {}).items() if not _is_there(sign)]
    if answers:
        # Any engine will do, also one on another socket or one that was not installed as a package.
        lacking = [package for package in lacking if table["engine"][package] != "dockerd"]
    if manager != "apt":
        what = f"this distribution ({distribution(root=root).identifier}) cannot be set up by vllm-wheels"
        command = f"{table['command']} {' '.join(lacking)} && systemctl start docker" if table else None
        remedy = f"sudo sh -c '{command}'" if command else "install and start Docker and debootstrap by hand"
        raise MachineError(what, why="it has no apt, and is not Debian or one of its kin", remedy=remedy)
    return lacking


def _is_there(sign: str) -> bool:
    return Path(sign).is_file() if sign.startswith("/") else program(sign) is not None


def _leftovers(root: Path, *, answers: bool) -> tuple[Item, ...]:
    """An engine that was killed left its number behind; once that number is another process's, it refuses to start."""
    stale = [] if answers else [path for name, path in PID_FILES.items() if _is_stale(root / path, name)]
    if not stale:
        return ()
    argv = ("rm", "-f", *(str(root / path) for path in stale))
    return (Item(title="no process numbers left by a killed engine", argv=argv, present=False),)


def _is_stale(path: Path, name: str) -> bool:
    try:
        number = int(path.read_text("ascii"))
        return Path(f"/proc/{number}/comm").read_text("ascii").strip() != name
    except FileNotFoundError:
        return path.exists()
    except ValueError:
        return True


def _start(settings: Settings, root: Path) -> tuple[str, ...]:
    if (root / "run/systemd/system").is_dir():
        return ("systemctl", "start", "docker")
    # Without systemd there is mostly no firewall tool either, and no right to make a bridge: containers get the host's
    # network or none at all, which is what builds use. start-stop-daemon (dpkg) detaches it and lets it outlive us.
    daemon = program("dockerd") or "/usr/sbin/dockerd"
    start = ("start-stop-daemon", "--start", "--oknodo", "--background", "--output", str(engine_log(settings)))
    return (*start, "--exec", daemon, "--", "--iptables=false", "--bridge=none")


def _refuse_foreign_engine(todo: Sequence[Item]) -> None:
    address = os.environ.get("DOCKER_HOST")
    if address and any(item.starts for item in todo):
        what = f"no container engine answers at {address}"
        why = "DOCKER_HOST names it, and set-up starts engines only at their default address"
        raise EngineUnreachableError(what, why=why, remedy="correct or unset DOCKER_HOST, or start that engine")


def _require_root(todo: Sequence[Item]) -> None:
    if os.geteuid() != 0:
        what = "setting up needs root"
        why = f"missing: {'; '.join(item.title for item in todo)}"
        commands = " && ".join(shlex.join(item.argv) for item in todo)
        raise MachineError(what, why=why, remedy=f"sudo sh -c {shlex.quote(commands)}")


def _carry_out(item: Item, *, log: Path, runner: Runner) -> None:
    environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        finished = runner.run(item.argv, log=log, timeout_seconds=INSTALL_SECONDS, env=environment)
    except FileNotFoundError as error:
        what = f"{item.title} cannot be set up"
        raise MachineError(what, why=f"there is no {item.argv[0]}", remedy="install it by hand") from error
    if finished.status != 0:
        what = f"{item.title} cannot be set up"
        why = f"{item.argv[0]} ended with status {finished.status}: {' / '.join(finished.tail[-LAST_LINES:])}"
        raise MachineError(what, why=why, remedy=f"see {log}; correct what it names, or: {shlex.join(item.argv)}")
