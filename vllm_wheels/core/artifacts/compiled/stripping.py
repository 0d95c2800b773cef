"""Strips a compiled wheel's extensions inside the builder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from vllm_wheels.core.engine.builder import PLACE, Builder, Command, Mount
from vllm_wheels.core.errors import WheelError
from vllm_wheels.core.formats.packing import pack_wheel
from vllm_wheels.core.formats.wheel_name import wheel_tag
from vllm_wheels.core.formats.wheelfile import WheelFile, elf_files, unpack_wheel
from vllm_wheels.core.host.commands import EXTENSIONS, Invocation

STRIP = Invocation(argv=("strip", "--strip-unneeded", EXTENSIONS), folder=f"{PLACE}/unpacked", place="builder")

LIMIT_SECONDS = 900.0
EARLIEST = 0
"""Time of an intermediate wheel's members: any, as long as it is always the same."""


def strip_wheel(
    wheel: Path, builder: Builder, *, invocation: Invocation = STRIP, log: Path | None = None
) -> dict[str, tuple[int, int]]:
    """Strips every ELF file of a wheel with the ``strip`` of the builder, in place of the unstripped one.

    Returns:
        Sizes in bytes before and after, by member.

    Raises:
        WheelError: the wheel is damaged, holds no compiled code, or ``strip`` failed.
    """
    file = WheelFile.read(wheel)
    with TemporaryDirectory(prefix="strip-", dir=wheel.parent) as temporary:
        folder = Path(temporary)
        unpack_wheel(wheel, folder)
        names = [path.relative_to(folder).as_posix() for path in elf_files(folder)]
        if not names:
            what = f"{wheel.name} holds no compiled code"
            raise WheelError(what, why="none of its files is an ELF file", remedy="read the build log")
        before = [(folder / name).stat().st_size for name in names]
        _strip(folder, invocation.filled({EXTENSIONS: names}), builder, log)
        after = [(folder / name).stat().st_size for name in names]
        tag = wheel_tag(wheel)
        packed = pack_wheel(folder, folder, distribution=file.name, version=file.version, tag=tag, epoch=EARLIEST)
        packed.replace(wheel)
    return dict(zip(names, zip(before, after, strict=True), strict=True))


def _strip(folder: Path, invocation: Invocation, builder: Builder, log: Path | None) -> None:
    mounts = [Mount(source=folder.absolute(), place=str(invocation.folder), writable=True)]
    command = Command.of(invocation, mounts=mounts)
    finished = builder.run(command, log=log, timeout_seconds=LIMIT_SECONDS)
    if finished.status:
        what = "the compiled wheel cannot be stripped"
        why = finished.tail[-1] if finished.tail else f"strip ended with status {finished.status}"
        raise WheelError(what, why=why, remedy="install binutils in the builder")
