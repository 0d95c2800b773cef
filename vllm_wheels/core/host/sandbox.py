"""Confines foreign code: the user, rights and limits that it has everywhere, and bubblewrap for where no engine is.

Containers (``core.builders.container``) and bubblewrap keep to the same: a user that owns nothing, no capabilities and
no way to any, nothing of the host to write but what is lent, limits, and no network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vllm_wheels.core.errors import MachineError
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.handover import give
from vllm_wheels.core.host.ownership import NOBODY
from vllm_wheels.core.host.processes import Runner

BUBBLEWRAP, LIMITER, DROPPER = "bwrap", "prlimit", "setpriv"
TOOLS = {BUBBLEWRAP: "bubblewrap", LIMITER: "util-linux", DROPPER: "util-linux"}
"""Programs, and the packages of Debian that have them."""

TRY_SECONDS = 60.0

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin")
REACH = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki", "/etc/ca-certificates")
"""What one needs besides, with the network."""

ALSO = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/sys/devices/system")
"""What a program needs to be loaded, where auditwheel looks for libraries, and what torch asks about the CPU."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What a command may see of the host, beside the system's programs and libraries.

    Attributes:
        writable: folders that it may write.
        readable: folders and files that it may read.
        network: whether it has the host's network.
    """

    writable: Sequence[Path]
    readable: Sequence[Path] = ()
    network: bool = False

    def words(self, argv: Sequence[str], *, folder: Path) -> list[str]:
        """The command line that runs a command in the sandbox, in a working folder of it.

        Raises:
            MachineError: this machine lacks bubblewrap, or what limits a process.
        """
        require()
        net = [] if self.network else ["--unshare-net"]
        return [BUBBLEWRAP, *self._view(), *net, *_rights(), "--chdir", str(folder), "--", *_limited(), *argv]

    def prepare(self) -> None:
        """Lets the user of the sandbox write its folders."""
        lend(self.writable)

    def _view(self) -> list[str]:
        words = ["--proc", "/proc", "--dev", "/dev"]
        # Processes of one command share memory in the second: it would be root's alone.
        words += [word for own in ("/tmp", "/dev/shm") for word in ("--perms", "1777", "--tmpfs", own)]  # noqa: S108
        also = [Path(place) for place in (*ALSO, *(REACH if self.network else ()))]
        above = {parent for path in (*also, *self.readable, *self.writable) for parent in path.parents}
        # Or they would be as closed as those of the host, of which the sandbox's user owns none.
        words += [word for parent in sorted(above)[1:] for word in ("--perms", "0755", "--dir", str(parent))]
        for place in SYSTEM:
            path = Path(place)
            if path.is_symlink():
                words += ["--symlink", str(path.readlink()), place]
            elif path.exists():
                words += ["--ro-bind", place, place]
        words += [word for path in also for word in ("--ro-bind-try", str(path), str(path))]
        words += [word for path in self.readable for word in ("--ro-bind", str(path), str(path))]
        return words + [word for path in self.writable for word in ("--bind", str(path), str(path))]


def require() -> None:
    """Raises MachineError where this machine has no sandbox."""
    if found := obstacle():
        what = "foreign code is run in a sandbox only, and this machine has none"
        remedy = "apt-get install bubblewrap util-linux; or let a container engine answer (vllm-wheels set-up)"
        elsewhere = "on a machine for nothing else builder.unguarded, or --unguarded"
        raise MachineError(what, why=found, remedy=f"{remedy}; {elsewhere}")


def obstacle() -> str | None:
    """Why nothing can be confined on this host, in one line; None where it can."""
    return _obstacle(os.environ.get("PATH", os.defpath))


@cache
def _obstacle(_path: str) -> str | None:
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            return f"{tool} is not installed (package {package})"
    words = [BUBBLEWRAP, *Sandbox(writable=())._view(), *_rights(), "--", *_limited(), "true"]  # noqa: SLF001 - its own
    finished = Runner().run(words, env=no_variables(), timeout_seconds=TRY_SECONDS, quiet=True)
    return (finished.tail or (f"{BUBBLEWRAP} ended with status {finished.status}",))[-1] if finished.status else None


def lend(folders: Iterable[Path]) -> None:
    """Gives what is root's in folders to the user of sandboxes; who is not root is that user."""
    if os.geteuid() == 0:
        give([folder.resolve() for folder in folders], user=NOBODY, group=NOBODY)


def take_back(folders: Iterable[Path]) -> None:
    """Makes what was lent root's again, once all that ran there has ended; that clears set-uid bits (chown(2))."""
    if os.geteuid() == 0:
        give([folder.resolve() for folder in folders], user=0, group=0, of=(NOBODY,))


def _rights() -> list[str]:
    words = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"]
    if os.geteuid() != 0:
        return [*words, "--unshare-user", "--unshare-cgroup-try"]
    # Root makes the namespaces and then becomes a user whom limits bind.
    kept = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
    return [*words, "--unshare-cgroup-try", *(word for name in kept for word in ("--cap-add", name))]


def _limited() -> list[str]:
    limited = [
        LIMITER,
        f"--nproc={limits.SANDBOX_PROCESSES}",
        f"--data={limits.SANDBOX_MEMORY_BYTES}",
        f"--fsize={limits.SANDBOX_FILE_BYTES}",
        "--core=0",
        "--",
    ]
    if os.geteuid() != 0:
        return limited
    user = f"--reuid={NOBODY}", f"--regid={NOBODY}"
    return [DROPPER, *user, "--clear-groups", "--bounding-set=-all", "--no-new-privs", *limited]


def no_variables() -> Mapping[str, None]:
    """Changes to an environment that leave nothing of it: the sandbox's first process shows its own to all in there."""
    return dict.fromkeys(os.environ)
