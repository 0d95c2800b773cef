"""What this machine has: cores, memory, disk, distribution; control groups count, not only the hardware."""

import errno
import math
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm_wheels.core.errors import DiskSpaceError, FolderError, MemoryShortageError
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.system_errors import of_system
from vllm_wheels.core.settings import Settings

GIGABYTE = 1e9
ADMINISTRATION = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Folders of root's programs, which the PATH of other users often lacks."""

ROOT = Path("/")
CONTAINER_REMEDY = "compile in a container (vllm-wheels set-up, and builder.kind = container)"


def jobs(settings: Settings, *, root: Path = ROOT) -> int:
    """How many jobs one compile runs: its share of what cores and memory carry, at least one.

    ``builder.max_jobs`` overrides what the machine offers; ``builder.side_by_side`` compiles share it.
    """
    builder = settings.builder
    if builder.max_jobs is not None:
        return max(1, builder.max_jobs // builder.side_by_side)
    memory = min(memory_available(root=root), builder.memory_gigabytes or math.inf)
    carried = min(cores(root=root), int(memory / builder.gigabytes_per_job))
    return max(1, carried // builder.side_by_side)


def require_room(folder: Path, gigabytes: float = limits.BUILD_DISK_GIGABYTES) -> None:
    """Makes sure that the disk of a folder, which need not exist yet, has room."""
    present = room(folder)
    if present < gigabytes:
        what = f"the disk of {folder} is too full"
        why = f"{gigabytes:.1f} GB are needed, {present:.1f} GB are free"
        raise DiskSpaceError(what, why=why, remedy="free some room, or point state_folder at a larger disk")


def room(folder: Path) -> float:
    """Free disk of a folder, which need not exist yet, in GB of 10^9 bytes."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free / GIGABYTE


def require_writable(folder: Path, *, setting: str) -> None:
    """Makes sure, before anything long begins, that files can be put into a folder, which need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = f"{existing} is not a folder"
        remedy = f"remove that file, or name another {setting}"
        raise FolderError(what, why=f"{setting} names it", remedy=remedy)
    try:
        # Really made, and removed again: permission bits do not tell of read-only and full disks, nor of /proc.
        with TemporaryDirectory(dir=existing) as probe:
            Path(probe, "file").write_bytes(b"vllm-wheels")
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise of_system(error, path=folder) from error
        what = f"nothing can be written to {folder}"
        why = f"{os.strerror(error.errno or 0)}; {setting} names it"
        raise FolderError(what, why=why, remedy=f"name another {setting}, or give this user the right") from error


def require_memory(gigabytes: float = limits.BUILD_MEMORY_GIGABYTES, *, root: Path = ROOT) -> None:
    """Makes sure that there is memory, within this process's control group."""
    present = memory_available(root=root)
    if present < gigabytes:
        what = "there is too little memory for the build"
        why = f"{gigabytes:.1f} GB are needed, {present:.1f} GB are available"
        remedy = "stop other programs, raise the container's memory limit, or lower --max-jobs (builder.max_jobs)"
        raise MemoryShortageError(what, why=why, remedy=remedy)


def cores(*, root: Path = ROOT) -> int:
    """Cores that this process may use: its affinity, within the quota of its control groups; at least one."""
    allowed = len(os.sched_getaffinity(0))
    for group in _groups(root, "cpu"):
        text = _text(group / "cpu.max") or f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            allowed = min(allowed, int(quota) // int(period))
    return max(1, allowed)


def memory_available(*, root: Path = ROOT) -> float:
    """Memory that can be had without swapping, in GB of 10^9 bytes, within the limits of its control groups."""
    available = _statistic(root / "proc/meminfo", ("MemAvailable:",)) * 1024
    for group in _groups(root, "memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            # Files that were read lately count as used, but the kernel gives them up before it kills anybody.
            reclaimable = _statistic(group / "memory.stat", ("total_inactive_file", "inactive_file"))
            available = min(available, max(0, int(limit) - int(used) + reclaimable))
    return available / GIGABYTE


def program(name: str) -> str | None:
    """Path of a program of PATH or of root's folders; None where there is none."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *ADMINISTRATION]))


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The Linux distribution of a machine."""

    identifier: str  # ``ID`` of os-release, such as ``debian``
    version: str  # ``VERSION_ID``; empty for a rolling one
    codename: str  # ``VERSION_CODENAME``; empty where there is none
    manager: str | None  # package manager, a table of packages.toml; None where none of them is used

    def install_numa(self) -> str | None:
        """The command that installs the headers of libnuma; None where the package manager is unknown."""
        if self.manager is None:
            return None
        table = packages()[self.manager]
        return f"{table['command']} {table['numa']}"

    def install_compiler(self) -> str | None:
        """The command that installs a compiler that is new enough, and libnuma; None where none is offered."""
        known = packages()["compilers"]
        compiler = known.get(f"{self.identifier} {self.version}") or known.get(self.identifier)
        if self.manager is None or compiler is None:
            return None
        table = packages()[self.manager]
        return f"{table['command']} {compiler} {table['numa']}"


def distribution(*, root: Path = ROOT) -> Distribution:
    """This machine's distribution, as os-release(5) tells."""
    facts = dict(_assignments(_text(root / "etc/os-release") or _text(root / "usr/lib/os-release")))
    identifier = facts.get("ID", "linux")
    ids = {identifier, *facts.get("ID_LIKE", "").split()}
    manager = next((name for name, table in packages().items() if ids & set(table.get("like", ()))), None)
    return Distribution(
        identifier=identifier,
        version=facts.get("VERSION_ID", ""),
        codename=facts.get("VERSION_CODENAME", ""),
        manager=manager,
    )


@cache
def packages() -> Mapping[str, Any]:
    """The tables of packages.toml."""
    return tomllib.loads(files(__package__).joinpath("packages.toml").read_text("utf-8"))


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            yield name.strip(), value.strip().strip("\"'")


def _statistic(path: Path, names: tuple[str, ...]) -> int:
    found = {line.split()[0]: int(line.split()[1]) for line in _text(path).splitlines() if len(line.split()) > 1}
    return next((found[name] for name in names if name in found), 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, up to the root: version 2 and the controller's of version 1."""
    hierarchy = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, place = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        top = hierarchy if number == "0" else hierarchy / controllers
        folder = top / place.strip("/")
        # In a container the path is often the host's and not visible; then the top is the container's own group.
        yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top) and group.is_dir())


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
