"""Lets auditwheel graft outside libraries and find the platform tag, inside the builder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.policy import WheelPolicies

from vllm_wheels.core.engine.builder import PLACE, Builder, Command, Mount
from vllm_wheels.core.errors import CannotVerifyError, WheelError
from vllm_wheels.core.formats.elf import TORCH_LIBRARIES, binaries
from vllm_wheels.core.formats.packing import pack_wheel
from vllm_wheels.core.formats.wheel_name import wheel_in, wheel_tag
from vllm_wheels.core.formats.wheelfile import WheelFile, unpack_wheel
from vllm_wheels.core.host.commands import PATH, PYTHON, WHEEL, Invocation

LOADER = "ld-linux*.so.*"
"""The dynamic loader, which every Linux has; auditwheel's white-lists do not mention it."""

TOO_NEW = re.compile(r"cannot repair .* because of the presence of too-recent versioned symbols")
"""What auditwheel 6.8 (main_repair.py) says where not even its newest policy fits."""

INSTALL_LIBRARIES = "install the libraries that the wheel is linked to in the builder"

LIMIT_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What became of a wheel.

    Attributes:
        platforms: its platform tags; ``linux_x86_64`` alone where no policy fits.
        grafted: libraries that were put into it, by their path in the wheel.
        outside: libraries that torch or the system must bring, beyond what every Linux of the platform has.
        reason: why it is tagged plain linux; None where it is not.
    """

    path: Path
    platforms: tuple[str, ...]
    grafted: tuple[str, ...]
    outside: tuple[str, ...]
    reason: str | None


def grafting(epoch: int) -> Invocation:
    """What ``repair`` starts, in a plan."""
    # No compression: the answer is unpacked again at once. No tag stands for a level of instruction sets, and the
    # extensions are meant to note theirs.
    packed = ("--zip-compression-level", "0", "--wheel-dir", f"{PLACE}/repaired")
    chosen = ("--plat", "auto", "--disable-isa-ext-check", *packed)
    excluded = tuple(word for pattern in TORCH_LIBRARIES for word in ("--exclude", pattern))
    return Invocation(
        argv=(PYTHON, "-m", "auditwheel", "repair", *chosen, *excluded, f"{PLACE}/assembled/{WHEEL}"),
        environment={
            "PATH": f"{PLACE}/tools/bin:{PATH}",
            "PYTHONPATH": f"{PLACE}/tools",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SOURCE_DATE_EPOCH": str(epoch),
        },
        folder=f"{PLACE}/repaired",
        place="builder",
    )


def repair(
    wheel: Path,
    out: Path,
    *,
    builder: Builder,
    tools: Path,
    python: str,
    epoch: int,
    invocation: Invocation | None = None,
    log: Path | None = None,
) -> Repaired:
    """Grafts what the wheel needs from outside and gives it the best platform tag that it deserves.

    The wheel is packed anew in the end, uncompressed, so that the same wheel, builder and tools give the same bytes.
    Where no policy of auditwheel fits, it stays as it is: tagged plain linux, nothing grafted, with the reason.

    The builder is the one that compiled the wheel, and has the libraries it is linked to.

    Raises:
        WheelError: auditwheel failed, its tags disagree, or the wheel still needs a library that neither torch nor the
            system brings.
    """
    file = WheelFile.read(wheel)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="repair-", dir=out) as temporary:
        answer, folder = Path(temporary, "answer"), Path(temporary, "unpacked")
        answer.mkdir()
        command = _command(invocation or grafting(epoch), wheel, answer, builder=builder, tools=tools, python=python)
        reason = _auditwheel(wheel, command, builder=builder, log=log)
        found = WheelFile.read(wheel if reason else wheel_in(answer))
        _require_same_tags(found)
        unpack_wheel(found.path, folder)
        platforms = tuple(sorted({tag.platform for tag in found.tags}))
        outside = _outside(folder, platforms)
        alien = [name for name in outside if not _of_torch(name)]
        if alien and not reason:
            what = f"{found.path.name} still needs libraries from outside"
            why = f"neither torch nor {platforms[0]} brings {', '.join(alien)}"
            raise WheelError(what, why=why, remedy=INSTALL_LIBRARIES)
        grafted = tuple(sorted(name for name in found.members.keys() - file.members.keys() if ".libs/" in name))
        tag = wheel_tag(found.path)
        path = pack_wheel(folder, out, distribution=file.name, version=file.version, tag=tag, epoch=epoch)
    return Repaired(path=path, platforms=platforms, grafted=grafted, outside=outside, reason=reason)


def _command(
    invocation: Invocation, wheel: Path, answer: Path, *, builder: Builder, tools: Path, python: str
) -> Command:
    mounts = [
        Mount(source=wheel.parent.absolute(), place=f"{PLACE}/assembled"),
        Mount(source=tools.absolute(), place=f"{PLACE}/tools"),
        Mount(source=answer.absolute(), place=f"{PLACE}/repaired", writable=True),
    ]
    known = {PYTHON: builder.python(python), PATH: builder.path(), WHEEL: wheel.name}
    return Command.of(invocation.filled(known), mounts=mounts)


def _auditwheel(wheel: Path, command: Command, *, builder: Builder, log: Path | None) -> str | None:
    lines: list[str] = []
    finished = builder.run(command, log=log, timeout_seconds=LIMIT_SECONDS, on_line=lines.append)
    if not finished.status:
        return None
    said = [line.strip() for line in lines if line.strip()] or [f"it ended with status {finished.status}"]
    if any(TOO_NEW.search(line) for line in said):
        return "no manylinux policy fits: the builder's C or C++ library is newer than the newest of them"
    what = f"auditwheel cannot repair {wheel.name}"
    raise WheelError(what, why=said[-1], remedy=INSTALL_LIBRARIES)


def _require_same_tags(found: WheelFile) -> None:
    if found.tags != found.wheel_tags:
        what = f"the tags of {found.path.name} disagree"
        why = f"WHEEL inside says {', '.join(sorted(str(tag) for tag in found.wheel_tags)) or 'none'}"
        raise WheelError(what, why=why, remedy="pin another auditwheel in tools.toml")


def _outside(folder: Path, platforms: tuple[str, ...]) -> tuple[str, ...]:
    try:
        files = binaries(folder)
    except CannotVerifyError as error:
        raise WheelError(error.what, why=error.why, remedy=error.remedy) from error
    needed = {name for file in files for name in file.needed}
    everywhere = _brought_by_system(platforms) | {file.path.name for file in files}
    return tuple(sorted(name for name in needed - everywhere if not fnmatchcase(name, LOADER)))


def _brought_by_system(platforms: tuple[str, ...]) -> frozenset[str]:
    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture.x86_64)
    named = set(platforms) - {policies.linux.name}
    promised = [policy for policy in policies if {policy.name, *policy.aliases} & named]
    # A plain linux wheel promises no policy; the newest one tells what any Linux has.
    return frozenset.intersection(*(policy.whitelist for policy in promised or [policies.lowest]))


def _of_torch(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in TORCH_LIBRARIES)
