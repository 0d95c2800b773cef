"""Unpacks a wheel into a temporary folder and reads its machine code; nothing in it is executed."""

import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.utils import canonicalize_name

from vllm_wheels.core.errors import CannotVerifyError, UnknownVariantError, WheelError
from vllm_wheels.core.formats.elf import binaries
from vllm_wheels.core.formats.instructions import Scan, scan
from vllm_wheels.core.formats.wheel_name import WHEEL_SUFFIX, WheelName
from vllm_wheels.core.formats.wheelfile import WheelFile, unpack_wheel
from vllm_wheels.core.host import limits
from vllm_wheels.core.host.files import sha256_of
from vllm_wheels.core.host.machine import GIGABYTE, memory_available, room
from vllm_wheels.core.host.processes import Runner
from vllm_wheels.core.names import distributions
from vllm_wheels.core.patches.guard_files import INIT
from vllm_wheels.core.settings import Settings
from vllm_wheels.core.variants import Variant, variants
from vllm_wheels.core.variants import variant as variant_named
from vllm_wheels.core.verify.unpacked import Neighbour, UnpackedWheel

MEMORY, SPARE = Path("/dev/shm"), 8  # noqa: S108 - a folder of its own is made there
"""Linux keeps this folder in memory; so many times as much as a wheel takes must be free."""

UPSTREAM = "vllm"
REMEDY = "take another copy of the file, or build it anew"
OTHER = "give a file NAME-VERSION-PYTHON-ABI-PLATFORM.whl, or NAME==VERSION"


@contextmanager
def opened(
    path: Path,
    *,
    settings: Settings,
    runner: Runner,
    variant: str | None = None,
    any_wheel: bool = False,
    neighbours: Sequence[Neighbour] = (),
    scanner: Callable[[Path], Scan] = scan,
) -> Iterator[UnpackedWheel]:
    """Unpacks a wheel into a temporary folder and reads its machine code.

    A wheel that is not vLLM is refused unless ``any_wheel`` is asked for. The variant is guessed from the name where it
    is not given; ``scanner`` reads the machine code of a folder, or takes what was read before.

    Raises:
        CannotVerifyError: it is no wheel, is not vLLM, is damaged, or is made to do harm; nothing is left behind.
        UnknownVariantError: no variant has the name.
    """
    # Tools run in other folders.
    path = path.absolute()
    require_wheel(path)
    with _refusing(path):
        _require_bounded(path)
        file = WheelFile.read(path, trusting=False)
    if not any_wheel:
        require_vllm(file, settings)
    with TemporaryDirectory(prefix="vllm-wheels-verify-", dir=_in_memory(file)) as temporary:
        folder = Path(temporary, "wheel")
        with _refusing(path):
            unpack_wheel(path, folder)
            machine_code = scanner(folder)
        yield UnpackedWheel(
            path=path,
            folder=folder,
            file=file,
            sha256=sha256_of(path),
            scan=machine_code,
            binaries=binaries(folder),
            variant=variant_named(variant) if variant else guessed(path, settings),
            by_name=variant is None,
            settings=settings,
            runner=runner,
            neighbours=tuple(neighbours),
        )


def _in_memory(file: WheelFile) -> Path | None:
    """A folder in memory for a wheel that is small for it; None where the disk has to do.

    A disk takes a tenth of all the processor's time of a verification for making thousands of files. A folder for
    temporary files that somebody set is where they go.
    """
    size = sum(file.members.values())
    chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    if chosen or size > limits.WHEEL_IN_MEMORY_BYTES or not os.access(MEMORY, os.W_OK):
        return None
    free = min(room(MEMORY), memory_available())
    return MEMORY if size * SPARE / GIGABYTE < free else None


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Tells what keeps a file from being read as a reason not to verify it."""
    try:
        yield
    except WheelError as error:
        raise CannotVerifyError(error.what, why=error.why, remedy=error.remedy) from error
    except (OSError, ValueError) as error:
        # No right to read it, or names of members that no file system takes.
        raise _refused(path, f"it cannot be unpacked: {error}") from error


def require_vllm(file: WheelFile, settings: Settings) -> None:
    """Refuses a wheel that is neither called as one of vLLM nor holds its package."""
    if not is_vllm(file, settings):
        what = f"{file.path.name} is not vLLM"
        why = f"this is not vLLM: it is called {WheelName.parse(file.path.name).distribution} and holds no package vllm"
        raise CannotVerifyError(
            what, why=why, remedy="verify it with --any, which runs the checks that hold for any wheel"
        )


def is_vllm(file: WheelFile, settings: Settings) -> bool:
    """Whether a wheel is called as one of vLLM, or holds its package."""
    named = {UPSTREAM, *(each.distribution for each in variants().values()), *distributions(settings).values()}
    return INIT in file.members or WheelName.parse(file.path.name).distribution in {canonicalize_name(n) for n in named}


def guessed(path: Path, settings: Settings) -> Variant | None:
    """The variant that a wheel's distribution is named after; None where no variant is called so."""
    name = WheelName.parse(path.name).distribution
    for candidate, configured in distributions(settings).items():
        if canonicalize_name(configured) == name:
            return variants()[candidate]
    try:
        return variant_named(name)
    except UnknownVariantError:
        return None


def require_wheel(path: Path) -> None:
    """Refuses a path that is not a wheel file of acceptable size, before its content is read."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise _refused(path, "there is no such file", remedy="name a file that exists, or NAME==VERSION") from error
    except OSError as error:
        raise _refused(path, f"it cannot be read: {error.strerror}") from error
    if path.is_dir():
        raise _refused(path, "it is a folder", remedy=OTHER)
    if not path.is_file():
        raise _refused(path, "it is neither a file nor a link to one", remedy=OTHER)
    if path.suffix != WHEEL_SUFFIX:
        kind = "a source archive" if path.name.endswith((".tar.gz", ".zip")) else "not named NAME.whl"
        raise _refused(path, f"it is {kind}", remedy=OTHER)
    size = status.st_size
    if size == 0:
        raise _refused(path, "it is empty")
    if size > limits.WHEEL_BYTES:
        raise _refused(path, f"it has {size / limits.MIB:.0f} MiB, more than {limits.WHEEL_BYTES // limits.MIB}")


def _require_bounded(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise _refused(path, f"it is not a zip file or is truncated ({error})") from error
    sizes = [info.file_size for info in infos]
    texts = [info.file_size for info in infos if info.filename.endswith(("/METADATA", "/WHEEL", "/RECORD"))]
    total, deflated = sum(sizes), max(limits.HARMLESS_BYTES, limits.DEFLATED_RATIO * path.stat().st_size)
    for limit, found, what in (
        (limits.WHEEL_MEMBERS, len(sizes), "{} members"),
        (limits.UNPACKED_BYTES, total, "{} bytes once unpacked"),
        (limits.WHEEL_MEMBER_BYTES, max(sizes, default=0), "a member of {} bytes"),
        (limits.WHEEL_TEXT_BYTES, max(texts, default=0), "a METADATA, WHEEL or RECORD of {} bytes"),
        (deflated, total, "{} bytes once unpacked, far more than its own size"),
    ):
        if found > limit:
            raise _refused(path, f"it has {what.format(found)}")


def _refused(path: Path, why: str, *, remedy: str = REMEDY) -> CannotVerifyError:
    shown = path.name.encode(sys.getfilesystemencoding(), "replace").decode(errors="replace")
    return CannotVerifyError(f"{shown} is not a wheel that can be verified", why=why, remedy=remedy)
