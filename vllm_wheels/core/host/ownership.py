"""Names a process so that the next run can tell whether it still lives, and clean up after a kill -9."""

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

PR_SET_PDEATHSIG = 1
"""Number of the request in linux/prctl.h."""

NOBODY = 65534
"""A user that owns nothing (Debian policy, 9.2.2), whom foreign code runs as where this program is root: root itself is
bound by no limit of processes."""

VARIABLE = "_VLLM_WHEELS_OWNER"
"""Environment variable by which processes on this host carry the name of the one that started them."""


def owner(pid: int) -> str:
    """The name of a process that exists: boot, process namespace, number and, as numbers recur, start time."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    # The name of the program stands in brackets and may hold blanks; the start time is field 22 (proc(5)).
    started = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()[19]
    return f"{boot} {Path('/proc/self/ns/pid').readlink()} {pid} {started}"


def fate(name: str) -> Literal["lives", "gone", "other boot", "other namespace"]:
    """What became of the process that ``owner`` named."""
    boot, namespace, pid, _ = name.rsplit(" ", 3)
    here_boot, here_namespace, _, _ = owner(os.getpid()).rsplit(" ", 3)
    if boot != here_boot:
        return "other boot"
    if namespace != here_namespace:
        return "other namespace"
    try:
        return "lives" if owner(int(pid)) == name else "gone"
    except FileNotFoundError:
        return "gone"


def end_with(parent: int) -> None:
    """Has the kernel kill this process as soon as its parent is gone, even if that is killed with -9 (prctl(2)).

    The parent itself gave its number; if it is gone already, this process ends at once.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def end_orphans() -> int:
    """Kills this user's processes whose owner was killed before it could end them; returns how many there were."""
    orphans = [pid for pid, name in _owned() if fate(name) == "gone"]
    for pid in orphans:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(orphans)


def _owned() -> Iterator[tuple[int, str]]:
    prefix = f"{VARIABLE}=".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_bytes().split(b"\0")
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            # Somebody else's process, or one that ended meanwhile.
            continue
        for word in words:
            if word.startswith(prefix):
                yield int(path.parent.name), word[len(prefix) :].decode()
