"""Runs foreign code in namespaces of its own, by bubblewrap: no network, no files or variables of the host, limits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_wheels.core.errors import CannotVerifyError
from vllm_wheels.core.host import limits

BUBBLEWRAP, LIMITER, DROPPER = "bwrap", "prlimit", "setpriv"
TOOLS = {BUBBLEWRAP: "bubblewrap", LIMITER: "util-linux", DROPPER: "util-linux"}
"""Programs, and the packages of Debian that have them."""

NOBODY = 65534
"""A user that owns nothing (Debian policy, 9.2.2); root itself is bound by no limit of processes."""

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin")
ALSO = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/sys/devices/system")
"""What a program needs of the host to be loaded, and what torch asks about the CPU."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What a command may see of the host, beside the system's programs and libraries.

    Attributes:
        writable: folders that it may write.
        readable: folders and files that it may read.
    """

    writable: Sequence[Path]
    readable: Sequence[Path] = ()

    def words(self, argv: Sequence[str], *, folder: Path) -> list[str]:
        """The command line that runs a command in the sandbox, in a working folder of it.

        Raises:
            CannotVerifyError: this machine lacks bubblewrap, or what limits a process.
        """
        for tool, package in TOOLS.items():
            if not shutil.which(tool):
                what = f"foreign code is run in a sandbox only, and {tool} is not installed"
                remedy = f"apt-get install {package}; or --unguarded, on a machine that is for nothing else"
                raise CannotVerifyError(what, why=f"there is no {tool} on PATH", remedy=remedy)
        return [BUBBLEWRAP, *self._view(), *_rights(), "--chdir", str(folder), "--", *_limited(), *argv]

    def prepare(self) -> None:
        """Lets the user of the sandbox write its folders."""
        if os.geteuid() == 0:
            for folder in self.writable:
                os.chown(folder, NOBODY, NOBODY)

    def _view(self) -> list[str]:
        words = ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108 - not the host's
        above = {parent for path in (*self.readable, *self.writable) for parent in path.parents}
        # Or they would be as closed as those of the host, of which the sandbox's user owns none.
        words += [word for parent in sorted(above)[1:] for word in ("--perms", "0755", "--dir", str(parent))]
        for place in SYSTEM:
            path = Path(place)
            if path.is_symlink():
                words += ["--symlink", str(path.readlink()), place]
            elif path.exists():
                words += ["--ro-bind", place, place]
        words += [word for place in ALSO for word in ("--ro-bind-try", place, place)]
        words += [word for path in self.readable for word in ("--ro-bind", str(path), str(path))]
        return words + [word for path in self.writable for word in ("--bind", str(path), str(path))]


def _rights() -> list[str]:
    words = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"]
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
